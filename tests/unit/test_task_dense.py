"""Dense predictions: numbers of a plane, squares of a picture."""

import numpy as np
import pytest
import torch
from detectors import traced
from PIL import Image
from planted_tasks import CLOSE, load
from torch import nn

from inspector.errors import UnknownTarget


class Depth(nn.Module):
    def __init__(self, *, channel):
        super().__init__()
        self.channel = channel
        self.down, self.deep = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.up, self.out = nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(6, 1, 1)

    def bottleneck(self, x):
        return torch.relu(self.deep(torch.relu(self.down(x))))

    def rest(self, A):
        found = self.out(torch.relu(self.up(A)))
        return found if self.channel else found[:, 0]

    def forward(self, x):
        return self.rest(self.bottleneck(x))


@pytest.mark.parametrize("channel", [True, False])
def test_the_maximum_a_point_and_a_mask_of_a_plane(tmp_path, channel):
    torch.manual_seed(4)
    module, path = Depth(channel=channel).eval(), tmp_path / "depth.onnx"
    pixels = np.random.default_rng(6).integers(0, 256, (40, 48, 3), np.uint8)
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
    traced(module, x, path, ["depth"])
    model = load(path)
    assert model.reading().task == "dense"
    A = module.bottleneck(x).detach().requires_grad_()
    plane = module.rest(A).reshape(20, 24)
    mask = np.zeros((40, 48), bool)
    mask[10:20, 20:40] = True
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "roi.png")
    top = np.unravel_index(plane.detach().numpy().argmax(), (20, 24))
    for text, score in (
        (None, plane[top]),
        ("@21,11", plane[5, 10]),
        (f"mask:{tmp_path / 'roi.png'}", plane[5:10, 10:20].sum()),
    ):
        (g,) = torch.autograd.grad(score, A, retain_graph=True)
        wanted = np.maximum((g * A).sum(1)[0].detach().numpy(), 0)
        found = model.explain(pixels, target=text).explanation.attribution
        assert found.layer == model.layers[1].tensor
        assert found.score == pytest.approx(float(score.detach()), rel=1e-4)
        np.testing.assert_allclose(found.values, wanted, atol=CLOSE * max(wanted.max(), 1e-9))
    with pytest.raises(UnknownTarget):
        model.explain(pixels, target="sky")


class Painter(Depth):
    """A picture of three channels at the size of the photo, channels first or last."""

    def __init__(self, *, last):
        super().__init__(channel=True)
        self.last, self.out = last, nn.ConvTranspose2d(6, 3, 2, 2)

    def rest(self, A):
        found = super().rest(A)
        return found.permute(0, 2, 3, 1) if self.last else found


@pytest.mark.parametrize("last", [False, True])
def test_squares_and_masks_of_a_picture_over_all_its_channels(tmp_path, last):
    torch.manual_seed(5)
    module, path = Painter(last=last).eval(), tmp_path / "painter.onnx"
    pixels = np.full((40, 48, 3), 90, np.uint8)
    pixels[20:28, 12:20] = np.random.default_rng(7).integers(0, 256, (8, 8, 3), np.uint8)
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
    traced(module, x, path, ["picture"])
    model = load(path)
    assert "a picture of 3 channels" in model.meaning
    A = module.bottleneck(x).detach().requires_grad_()
    planes = module.rest(A)[0]
    planes = planes.permute(2, 0, 1) if last else planes
    mask = np.zeros((40, 48), bool)
    mask[4:12, 30:40] = True
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "roi.png")
    for text, score in (
        ("@30,10", planes[:, 8:13, 27:33].sum()),
        ("@0,39", planes[:, 35:40, 0:6].sum()),
        (f"mask:{tmp_path / 'roi.png'}", planes[:, 4:12, 30:40].sum()),
        (
            f"sum(mask:{tmp_path / 'roi.png'}; -@0,39)",
            planes[:, 4:12, 30:40].sum() - planes[:, 35:40, 0:6].sum(),
        ),
    ):
        (g,) = torch.autograd.grad(score, A, retain_graph=True)
        wanted = np.maximum((g * A).sum(1)[0].detach().numpy(), 0)
        found = model.explain(pixels, target=text).explanation.attribution
        assert found.layer == model.layers[1].tensor
        assert found.score == pytest.approx(float(score.detach()), rel=1e-4)
        np.testing.assert_allclose(found.values, wanted, atol=CLOSE * max(wanted.max(), 1e-9))
    found = model.explain(pixels).explanation.attribution
    assert found.label == "detail"
    top, left, bottom, right = found.box
    assert (bottom - top, right - left) == (5, 6)
    assert 15 <= top <= 27  # where the noise is
    assert 8 <= left <= 20
    with pytest.raises(UnknownTarget, match="detail, @X,Y or mask:FILE"):
        model.explain(pixels, target="sky")
