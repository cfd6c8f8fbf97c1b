"""Segmenters: regions of classes of a planted network, at its bottleneck."""

import numpy as np
import pytest
import torch
from detectors import traced
from PIL import Image
from planted_tasks import CLOSE, lined, load
from torch import nn

from inspector.errors import ImageRefused, UnknownTarget
from inspector.overview import overview
from inspector.render.drawing.outline import outlined


class Segmenter(nn.Module):
    """A small U-Net; its bottleneck is known."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.up, self.out = nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(12, 3, 1)

    def bottleneck(self, x):
        self.skip = torch.relu(self.down1(x))
        return torch.relu(self.down2(self.skip))

    def rest(self, A):
        y = self.out(torch.cat((self.up(A), self.skip), 1))
        return nn.functional.interpolate(y, scale_factor=2, mode="bilinear")

    def forward(self, x):
        return self.rest(self.bottleneck(x))


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    torch.manual_seed(2)
    module = Segmenter().eval()
    pixels = np.random.default_rng(5).integers(0, 256, (40, 48, 3), np.uint8)
    pixels[10:30, 8:28] = (230, 20, 30)
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
    with torch.no_grad():
        module.out.bias -= module(x).mean((0, 2, 3))
    path = tmp_path_factory.mktemp("segmenter") / "unet.onnx"
    traced(module, x, path, ["logits"])
    return module, load(path, labels=["soil", "leaf", "fruit"]), pixels, x


def seg_grad_cam(module, x, number, mask):
    """Vinogradova et al. 2020: the sum of a class's logits over a region."""
    A = module.bottleneck(x).detach().requires_grad_()
    score = (module.rest(A)[0, number] * torch.from_numpy(mask)).sum()
    (g,) = torch.autograd.grad(score, A)
    found = (g.mean((2, 3), keepdim=True) * A).sum(1)[0].detach().numpy()
    return np.maximum(found, 0), float(score.detach())


def test_regions_of_classes_at_the_bottleneck(segmented):
    module, model, pixels, x = segmented
    won = module(x)[0].argmax(0).numpy()
    assert "segmenter" in model.meaning
    drawn = 0
    for number, name in enumerate(("soil", "leaf", "fruit")):
        wanted, score = seg_grad_cam(module, x, number, won == number)
        report = model.explain(pixels, target=name)
        found = report.explanation.attribution
        assert found.layer == model.layers[1].tensor
        assert found.score == pytest.approx(score, rel=1e-3)
        np.testing.assert_allclose(found.values, wanted, atol=CLOSE * max(wanted.max(), 1e-6))
        drawn += wanted.max() > 0
        mine = next(i for i in report.images[0].items if i["label"] == name)
        assert mine["pixels"] == (won == number).sum()
    assert drawn
    default = model.explain(pixels).explanation.attribution.label
    assert default == ("soil", "leaf", "fruit")[np.bincount(won.ravel()).argmax()]


class Written(nn.Module):
    """The scores of a segmenter as files write them down."""

    def __init__(self, module, way):
        super().__init__()
        self.module, self.way = module, way

    def forward(self, x):
        y = self.module(x)
        last = y.permute(0, 2, 3, 1)
        small = nn.functional.avg_pool2d(y, 2)
        ways = {
            "last": lambda: last,
            "softmax last": lambda: last.softmax(-1),
            "numbers": lambda: y.argmax(1, keepdim=True).to(torch.int32),
            "numbers of the last axis": lambda: last.argmax(-1),
            "auxiliary": lambda: (small, y),
            "one plane": (y[:, 2] - y[:, 1]).sigmoid,
        }
        return ways[self.way]()


@pytest.mark.parametrize(
    ("way", "outputs"),
    [
        ("last", ["logits"]),
        ("softmax last", ["out"]),
        ("numbers", ["out"]),
        ("numbers of the last axis", ["out"]),
        ("auxiliary", ["aux", "out"]),
        ("one plane", ["mask"]),
    ],
)
def test_scores_are_read_however_they_are_written(segmented, tmp_path, way, outputs):
    module, _, pixels, x = segmented
    traced(Written(module, way).eval(), x, tmp_path / "net.onnx", outputs)
    plane = way == "one plane"
    model = load(tmp_path / "net.onnx", labels=["fruit"] if plane else ["soil", "leaf", "fruit"])
    assert model.meaning.startswith(f"segmenter ('{'/' if 'numbers' in way else outputs[-1]}")
    assert f"{1 if plane else 3} class" in model.meaning
    A = module.bottleneck(x).detach().requires_grad_()
    y = module.rest(A)[0]
    won = (y[2] > y[1]).numpy() if plane else y.argmax(0).numpy() == 2
    score = ((y[2] - y[1] if plane else y[2]) * torch.from_numpy(won)).sum()
    (g,) = torch.autograd.grad(score, A)
    wanted = np.maximum((g.mean((2, 3), keepdim=True) * A).sum(1)[0].detach().numpy(), 0)
    found = model.explain(pixels, target="fruit").explanation.attribution
    assert found.score == pytest.approx(float(score.detach()), rel=1e-3)
    np.testing.assert_allclose(found.values, wanted, atol=CLOSE * max(wanted.max(), 1e-6))


def test_a_point_names_the_connected_region_and_a_mask_is_the_region(segmented, tmp_path):
    from scipy import ndimage

    module, model, pixels, x = segmented
    won = module(x)[0].argmax(0).numpy()
    parts, _ = ndimage.label(won == won[20, 18])
    wanted, score = seg_grad_cam(module, x, int(won[20, 18]), parts == parts[20, 18])
    found = model.explain(pixels, target="@18,20").explanation.attribution
    assert found.score == pytest.approx(score, rel=1e-3)
    np.testing.assert_allclose(found.values, wanted, atol=CLOSE * max(wanted.max(), 1e-6))
    mask = np.zeros((40, 48), bool)
    mask[5:25, 4:30] = True
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "roi.png")
    own = int(np.bincount(won[mask]).argmax())
    _, score = seg_grad_cam(module, x, own, mask)
    found = model.explain(pixels, target=f"mask:{tmp_path / 'roi.png'}").explanation.attribution
    assert found.score == pytest.approx(score, rel=1e-3)
    Image.fromarray(mask[:20].astype(np.uint8) * 255).save(tmp_path / "small.png")
    with pytest.raises(ImageRefused, match="48x20"):
        model.explain(pixels, target=f"mask:{tmp_path / 'small.png'}")
    other = ("soil", "leaf", "fruit")[(int(won[20, 18]) + 1) % 3]
    with pytest.raises(ImageRefused, match="given to"):
        model.explain(pixels, target=f"{other}@18,20")
    with pytest.raises(UnknownTarget):
        model.explain(pixels, target="stone")


def test_the_border_of_a_region_is_drawn(segmented):
    module, model, pixels, x = segmented
    won = module(x)[0].argmax(0).numpy()
    (explanation,) = model.explain(pixels, target="leaf").images[0].explanations
    panel = outlined(Image.new("RGB", (won.shape[1], won.shape[0])), explanation.heatmap)
    mask = np.pad(won == 1, 1)
    inner = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    np.testing.assert_array_equal(lined(panel), (won == 1) & ~inner)


def test_the_overview_names_the_layer_that_explain_takes(segmented):
    rows = overview(segmented[1]).rows
    taken = segmented[1].explain(segmented[2]).explanations[0].attribution.layer
    assert [row.tensor for row in rows if row.default] == [taken]
