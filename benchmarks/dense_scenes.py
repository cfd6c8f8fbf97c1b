"""Small networks of dense predictions, trained on drawn scenes, and scenes that they have not seen.

python benchmarks/dense_scenes.py -o DIR [--steps 500] [--photos 20]

No trained network for depth, anomalies or saliency comes in a package, so that two are trained here
in a minute: ``anomaly.onnx`` marks the patch in which stripes run across the others, and
``depth.onnx`` gives the nearness of every pixel of squares that fade into fog.  Both are U-Nets of
5,000 weights at 64 x 64.  `benchmarks/faithfulness.py` takes what is written.
"""

import argparse
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

SIDE, BATCH, NOISE = 64, 16, 12.0
SEED = 14


def anomaly(rng):  # noqa: ANN001, ANN201 - a script
    """Stripes with a patch in which they run across: pixels (H, W, 3), and where the patch is."""
    y, x = np.mgrid[:SIDE, :SIDE]
    period, phase, turned = rng.uniform(5, 9), rng.uniform(0, 6), rng.random() < 0.5
    along, across = (x, y) if turned else (y, x)
    place = np.zeros((SIDE, SIDE), bool)
    side = rng.integers(10, 20)
    top, left = rng.integers(0, SIDE - side, 2)
    place[top : top + side, left : left + side] = True
    wave = np.sin(2 * np.pi * np.where(place, across, along) / period + phase)
    colour = rng.uniform(40, 90, 3)
    pixels = 128 + wave[..., None] * colour + rng.normal(0, NOISE, (SIDE, SIDE, 3))
    return pixels, place.astype(np.float32)


def depth(rng):  # noqa: ANN001, ANN201 - a script
    """Squares in fog, the nearest drawn last: pixels, and the nearness of each from 0 to 1."""
    fog, near = rng.uniform(150, 210, 3), np.zeros((SIDE, SIDE), np.float32)
    pixels = np.broadcast_to(fog, (SIDE, SIDE, 3)).copy()
    for value in np.sort(rng.uniform(0.2, 1, 5)):
        side = int(8 + 16 * value)
        top, left = rng.integers(0, SIDE - side, 2)
        inside = np.s_[top : top + side, left : left + side]
        near[inside] = value
        pixels[inside] = value * rng.uniform(0, 110, 3) + (1 - value) * fog
    return pixels + rng.normal(0, NOISE, pixels.shape), near


SCENES = {"anomaly": anomaly, "depth": depth}


class Small(nn.Module):
    """A U-Net of three levels."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 8, 12, 16)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.deep = nn.Conv2d(16, 16, 3, 1, 1)
        self.up = nn.ModuleList([nn.Conv2d(28, 12, 3, 1, 1), nn.Conv2d(20, 8, 3, 1, 1)])
        self.out = nn.Conv2d(8, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, H, W) from (N, 3, H, W)."""
        levels = []
        for layer in self.down:
            x = torch.relu(layer(x))
            levels.append(x)
        x = torch.relu(self.deep(x))
        for layer, skip in zip(self.up, levels[-2::-1], strict=True):
            x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
            x = torch.relu(layer(torch.cat((x, skip), 1)))
        return nn.functional.interpolate(self.out(x), scale_factor=2, mode="bilinear")


def batch(scene, rng):  # noqa: ANN001, ANN201 - a script
    """Inputs from 0 to 1 and what is to be found, of new scenes."""
    pixels, wanted = zip(*(scene(rng) for _ in range(BATCH)), strict=True)
    x = np.stack(pixels).transpose(0, 3, 1, 2).clip(0, 255) / 255
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(np.stack(wanted))[:, None]


def trained(name: str, steps: int) -> Small:
    """A network for one kind of scene; what it reaches on new ones is printed."""
    torch.manual_seed(SEED)
    rng, network = np.random.default_rng(SEED), Small()
    optimiser = torch.optim.Adam(network.parameters(), 4e-3)
    loss = nn.BCEWithLogitsLoss() if name == "anomaly" else nn.MSELoss()
    for _ in range(steps):
        x, wanted = batch(SCENES[name], rng)
        optimiser.zero_grad()
        loss(network(x), wanted).backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        x, wanted = batch(SCENES[name], np.random.default_rng(SEED + 1))
        found = network(x)
    if name == "anomaly":
        both = (found > 0) & (wanted > 0)
        reached = both.sum() / ((found > 0) | (wanted > 0)).sum()
        print(f"anomaly: intersection over union {float(reached):.2f}")
    else:
        print(f"depth: mean error {float((found - wanted).abs().mean()):.3f} of 1")
    return network


def main() -> None:
    """Write networks and scenes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--photos", type=int, default=20)
    given = parser.parse_args()
    for name, scene in SCENES.items():
        folder = given.output / name
        folder.mkdir(parents=True, exist_ok=True)
        network = trained(name, given.steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network, torch.rand(1, 3, SIDE, SIDE), given.output / f"{name}.onnx",
                dynamo=False, opset_version=17, input_names=["images"], output_names=[name],
            )  # fmt: skip
        rng = np.random.default_rng(SEED + 2)
        for number in range(given.photos):
            pixels, _ = scene(rng)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")


if __name__ == "__main__":
    main()
