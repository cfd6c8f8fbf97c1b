"""Dense predictions: numbers of a plane, squares of a picture."""

import numpy as np
import pytest
import torch
from detectors import traced
from PIL import Image
from planted_tasks import CLOSE, load
from torch import nn

from inspector.errors import MethodRefused, ModelRefused, NoGradient, UnknownTarget
from inspector.methods import methods


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


SQUARE = (slice(12, 20), slice(32, 40))
"""Where the photo is red; the plane is large there and nowhere else."""

REACH = 8
"""Pixels beside it that a map of 4x4 cells, or a window that hides some of it, may rightly show."""


class Anomalies(nn.Module):
    """A plane that is large where the photo is red, and falls where it is blue; enlarged by 4."""

    def __init__(self, *, score):
        super().__init__()
        self.score = score
        self.seen, self.wanted = nn.Conv2d(3, 2, 4, 4), nn.Conv2d(2, 1, 1)
        with torch.no_grad():
            self.seen.weight[:] = -1 / 16
            self.seen.weight[0, 0] = self.seen.weight[1, 2] = 1 / 16
            self.seen.bias[:] = -0.3
            self.wanted.weight[:] = torch.tensor([1.0, -1.0])[None, :, None, None]
            self.wanted.bias[:] = 0

    def forward(self, x):
        found = nn.functional.interpolate(self.wanted(self.seen(x).relu()), scale_factor=4.0)
        return (found, found.amax((1, 2, 3))) if self.score else found


@pytest.fixture(scope="module")
def anomalies(tmp_path_factory):
    found = {}
    for score in (False, True):
        path = tmp_path_factory.mktemp("anomalies") / "net.onnx"
        names = ["anomaly_map", "pred_score"] if score else ["depth"]
        traced(Anomalies(score=score).eval(), torch.rand(1, 3, 40, 48), path, names)
        found[score] = load(path)
    return found


def coloured(*, blue=True):
    pixels = np.random.default_rng(2).integers(90, 160, (40, 48, 1)).repeat(3, axis=2)
    pixels[SQUARE] = (255, 0, 0)
    if blue:
        pixels[24:36, 4:16] = (0, 0, 255)
    return pixels.astype(np.uint8)


CHEAP = {
    "occlusion": "occlusion:window=8,stride=4",
    "rise": "rise:masks=300,cells=8",
    "d-rise": "d-rise:masks=50",
}
NOT_SPECIFIC = {"eigen-cam", "deconvnet"}
"""What else there is to see, and what is behind a unit whatever fired: they show blue as well."""


@pytest.mark.parametrize("text", [None, "mask"])
def test_every_method_points_at_the_planted_place_or_refuses(anomalies, tmp_path, text):
    if text == "mask":
        mask = np.zeros((40, 48), np.uint8)
        mask[SQUARE] = 255
        Image.fromarray(mask).save(tmp_path / "roi.png")
        text = f"mask:{tmp_path / 'roi.png'}"
    near = np.zeros((40, 48), bool)
    near[SQUARE[0].start - REACH : SQUARE[0].stop + REACH, 32 - REACH : 48] = True
    pointing, refused = [], []
    for name in methods():
        pixels = coloured(blue=name not in NOT_SPECIFIC)
        try:
            report = anomalies[text is None].explain(pixels, CHEAP.get(name, name), target=text)
        except (MethodRefused, ModelRefused, NoGradient):
            refused.append(name)
            continue
        values = np.nan_to_num(report.explanation.heatmap.values)
        positive = np.maximum(values, 0)
        assert near.ravel()[values.argmax()], name
        assert positive[near].sum() > 0.5 * positive.sum(), name
        pointing.append(name)
    assert {"hires-cam", "grad-cam", "gradient", "occlusion", "rise"} <= set(pointing)
    assert len(pointing) >= 15, refused
