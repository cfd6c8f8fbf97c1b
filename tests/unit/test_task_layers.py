"""Layers that a task names in pyramids: the deepest level, before its projection."""

import numpy as np
import pytest
import torch
from detectors import traced
from torch import nn

import inspector
from inspector.overview import overview

SIZE = (32, 40)


class Block(nn.Module):
    """A feed-forward branch with a convolution in it, as in SegFormer."""

    def __init__(self, width, *, last):
        super().__init__()
        self.norm, self.wide = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.mixing = nn.Conv2d(2 * width, 2 * width, 3, 1, 1, groups=2 * width)
        self.narrow = nn.Linear(2 * width, width)
        self.end = nn.LayerNorm(width) if last else nn.Identity()

    def forward(self, x):
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        wide = self.wide(self.norm(tokens)).transpose(1, 2).reshape(n, 2 * c, h, w)
        mixed = nn.functional.gelu(self.mixing(wide)).flatten(2).transpose(1, 2)
        self.output = self.end(tokens + self.narrow(mixed))
        return self.output.transpose(1, 2).reshape(n, c, h, w)


class Pyramid(nn.Module):
    """Two levels, each projected, enlarged and laid beside the other.

    ``projected`` by a matrix product, as in SegFormer, or by a convolution as in other heads.
    """

    def __init__(self, *, channels_first=False, added=False):
        super().__init__()
        torch.manual_seed(4)
        self.first, self.second = nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 8, 2, 2)
        self.blocks = nn.ModuleList([Block(6, last=True), Block(8, last=True)])
        self.projected = nn.ModuleList(
            nn.Conv2d(c, 5, 1) if channels_first else nn.Linear(c, 5) for c in (6, 8)
        )
        self.added, self.channels_first = added, channels_first
        self.out = nn.Conv2d(5 if added else 10, 3, 1)

    def project(self, number, level):
        if self.channels_first:
            return self.projected[number](level)
        found = self.projected[number](level.permute(0, 2, 3, 1))
        return found.permute(0, 3, 1, 2)

    def rest(self, low, high):
        low, high = self.project(0, low), self.project(1, high)
        high = nn.functional.interpolate(high, size=low.shape[2:], mode="bilinear")
        return self.out(torch.relu(low + high if self.added else torch.cat((low, high), 1)))

    def levels(self, x):
        low = self.blocks[0](self.first(x))
        return low, self.blocks[1](self.second(low))

    def forward(self, x):
        y = self.rest(*self.levels(x))
        return nn.functional.interpolate(y, scale_factor=4, mode="bilinear")


@pytest.mark.parametrize("variant", [{}, {"channels_first": True}, {"added": True}])
def test_the_deepest_level_is_taken_where_its_block_ends(tmp_path, variant):
    module = Pyramid(**variant).eval()
    pixels = np.random.default_rng(5).integers(0, 256, (*SIZE, 3), np.uint8)
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
    with torch.no_grad():
        module.out.bias -= module(x).mean((0, 2, 3))
    traced(module, x, tmp_path / "net.onnx", ["logits"])
    model = inspector.load(
        tmp_path / "net.onnx",
        device="cpu",
        preprocess="unit",
        overrides=("resize=squash",),
        unverified=True,
        labels=["soil", "leaf", "fruit"],
    )
    won = module(x)[0].argmax(0).numpy()
    low, high = (level.detach() for level in module.levels(x))
    high.requires_grad_()
    y = nn.functional.interpolate(module.rest(low, high), scale_factor=4, mode="bilinear")
    drawn = 0
    for number, name in enumerate(("soil", "leaf", "fruit")):
        (g,) = torch.autograd.grad(
            (y[0, number] * torch.from_numpy(won == number)).sum(), high, retain_graph=True
        )
        wanted = (g.mean((2, 3), keepdim=True) * high).sum(1)[0].detach().numpy()
        found = model.explain(pixels, target=name).explanation.attribution
        assert "/blocks.1/" in found.layer
        np.testing.assert_allclose(
            found.values, np.maximum(wanted, 0), atol=1e-4 * np.abs(wanted).max()
        )
        drawn += wanted.max() > 0
    assert drawn
    assert {row.tensor for row in overview(model).rows if row.default} <= {found.layer}
