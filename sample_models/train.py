"""Train the sample networks on CIFAR-10, from nothing.

    python sample_models/train.py cifar10.npz OUT_DIR [NAME ...] [--epochs N] [--seed S]

``cifar10.npz`` holds ``x_train`` (50000, 32, 32, 3) uint8, ``y_train`` (50000,), ``x_test``
(10000, 32, 32, 3) uint8 and ``y_test`` (10000,).  Each network leaves ``OUT_DIR/NAME.npz``, its
state dict in float32, and ``OUT_DIR/results_NAME.json``, its recipe with loss and accuracy along
training.  ZFNet also leaves ``OUT_DIR/zfnet_snapshots.npz``, float16, with keys such as
``epoch_005/0.weight``.  ``build.py`` turns these into ``.onnx``.

The recipe is one for all: SGD with Nesterov momentum, a linear warm-up and half a cosine down to
zero, weight decay, flips and shifts of up to four pixels, gradients clipped by their norm.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from architectures import MEAN, NETWORKS, STD
from numpy.typing import DTypeLike, NDArray
from torch import nn


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Attributes:
        epochs: Passes over the training images.
        peak: Learning rate at the end of the warm-up.
        decay: Weight decay.
        warm_up: Epochs over which the learning rate grows from zero.
        snapshots: Epochs after which the weights are kept beside the final ones.
        batch: Images a step.
        momentum: Nesterov's.
        clip: Largest norm of the gradient.
        shift: Largest translation of a training image, pixels.
    """

    epochs: int
    peak: float
    decay: float
    warm_up: int
    snapshots: tuple[int, ...] = ()
    batch: int = 128
    momentum: float = 0.9
    clip: float = 2.0
    shift: int = 4


RECIPES = MappingProxyType(
    {
        "all_cnn_c": Recipe(110, 0.05, 1e-3, 3),
        "base_c": Recipe(110, 0.03, 1e-3, 4),
        "conv_pool_cnn_c": Recipe(110, 0.03, 1e-3, 4),
        "resnet20": Recipe(80, 0.1, 5e-4, 2),
        "strided_cnn_c": Recipe(110, 0.05, 1e-3, 3),
        "zfnet": Recipe(64, 0.03, 5e-4, 2, (1, 2, 5, 10, 20, 30, 40, 64)),
        "zfnet_coarse": Recipe(64, 0.03, 5e-4, 2),
    }
)


@dataclass(frozen=True)
class Split:
    """Images x (N, 3, 32, 32), normalised, and their classes y (N,)."""

    x: torch.Tensor
    y: torch.Tensor


def load(path: Path, device: torch.device) -> tuple[Split, Split]:
    """Training and test images of an ``.npz``, on the device."""
    mean = torch.tensor(MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=device).view(1, 3, 1, 1)
    with np.load(path, allow_pickle=False) as archive:
        arrays = {key: torch.from_numpy(archive[key]).to(device) for key in archive.files}

    def split(name: str) -> Split:
        x = arrays[f"x_{name}"].permute(0, 3, 1, 2).float() / 255
        return Split(((x - mean) / std).contiguous(), arrays[f"y_{name}"].long())

    return split("train"), split("test")


def initialise(module: nn.Module) -> None:
    """He's initialisation for what ReLUs follow; zero biases."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def augment(x: torch.Tensor, shift: int) -> torch.Tensor:
    """Flip half of the images (N, C, H, W) and move each by up to ``shift`` pixels both ways.

    What moves in from outside is zero, the mean colour.
    """
    n, _, height, width = x.shape
    mirrored = torch.rand(n, 1, 1, 1, device=x.device) < 0.5
    padded = nn.functional.pad(torch.where(mirrored, x.flip(3), x), (shift,) * 4)
    corner = torch.randint(0, 2 * shift + 1, (2, n, 1), device=x.device)
    rows = corner[0] + torch.arange(height, device=x.device)
    columns = corner[1] + torch.arange(width, device=x.device)
    images = torch.arange(n, device=x.device).view(n, 1, 1)
    # Indices on both sides of the channels put those last.
    moved = padded[images, :, rows.unsqueeze(2), columns.unsqueeze(1)]
    return moved.permute(0, 3, 1, 2).contiguous()


def learning_rate(recipe: Recipe, epochs: int, at: float) -> float:
    """Learning rate after ``at`` epochs (a fraction counts) of ``epochs``."""
    warm = min(1.0, at / recipe.warm_up) if recipe.warm_up else 1.0
    return recipe.peak * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, at / epochs)))


@torch.inference_mode()
def accuracy(network: nn.Module, split: Split) -> float:
    """Share of the images whose class gets the highest score."""
    network.eval()
    right = 0
    for start in range(0, len(split.y), 1000):
        part = slice(start, start + 1000)
        right += int((network(split.x[part]).argmax(dim=1) == split.y[part]).sum())
    network.train()
    return right / len(split.y)


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    split: Split,
    recipe: Recipe,
    rate: Callable[[float], float],
) -> float:
    """One pass over the images in random order; the mean loss.

    Args:
        network: In training mode, with its optimizer.
        optimizer: Of that network.
        split: The training images; those that fill no whole batch are left for another epoch.
        recipe: Batch size, augmentation and clipping.
        rate: Learning rate at a share of this epoch, 0 to 1.
    """
    order = torch.randperm(len(split.y), device=split.y.device)
    steps = max(1, len(order) // recipe.batch)
    device, total = split.x.device.type, 0.0
    for step in range(steps):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
        for group in optimizer.param_groups:
            group["lr"] = rate((step + 1) / steps)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            scores = network(augment(split.x[chosen], recipe.shift))
            loss = nn.functional.cross_entropy(scores, split.y[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        optimizer.step()
        total += loss.item()
    return total / steps


def state(network: nn.Module, dtype: DTypeLike) -> dict[str, NDArray[Any]]:
    """The state dict as arrays of one type."""
    tensors = network.state_dict().items()
    return {key: tensor.detach().float().cpu().numpy().astype(dtype) for key, tensor in tensors}


def save(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write an ``.npz`` whole or not at all."""
    draft = path.with_suffix(".part.npz")
    np.savez(draft, **arrays)
    draft.replace(path)


def train(
    name: str, data: tuple[Split, Split], output: Path, *, epochs: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Train one network and leave its weights and its history in a folder.

    Args:
        name: Key of ``RECIPES``.
        data: Training and test images.
        output: The folder, which exists.
        epochs: In place of the recipe's; the schedule is stretched or squeezed to it.
        seed: Of weights, order and augmentation.

    Returns:
        What ``results_NAME.json`` holds.
    """
    recipe, (training, test) = RECIPES[name], data
    epochs = epochs or recipe.epochs
    torch.manual_seed(seed)
    network = NETWORKS[name]().to(training.x.device)
    network.apply(initialise).train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.peak,
        momentum=recipe.momentum,
        weight_decay=recipe.decay,
        nesterov=True,
    )
    history: list[dict[str, float]] = []
    kept: dict[str, NDArray[Any]] = {}
    for epoch in range(1, epochs + 1):

        def rate(share: float, before: int = epoch - 1) -> float:
            return learning_rate(recipe, epochs, before + share)

        loss = train_epoch(network, optimizer, training, recipe, rate)
        history.append({"epoch": epoch, "loss": loss, "test_accuracy": accuracy(network, test)})
        print(name, f"epoch {epoch} of {epochs}:", history[-1], flush=True)
        if epoch in recipe.snapshots:
            weights = state(network, np.float16)
            kept |= {f"epoch_{epoch:03d}/{key}": value for key, value in weights.items()}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    results = {"name": name, "params": parameters, "seed": seed, **asdict(recipe)}
    results |= {"epochs": epochs, "history": history}
    save(output / f"{name}.npz", state(network, np.float32))
    if kept:
        save(output / f"{name}_snapshots.npz", kept)
    (output / f"results_{name}.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    return results


def main() -> int:
    """Train what the command line asks for, on the GPU where there is one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, metavar="cifar10.npz")
    parser.add_argument("output", type=Path, metavar="OUT_DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")
    parser.add_argument("--epochs", type=int, metavar="N", help="in place of the recipe's")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    options = parser.parse_intermixed_args()
    names = options.names or list(RECIPES)
    unknown = sorted(set(names) - set(RECIPES))
    if unknown:
        parser.error(f"no such network: {', '.join(unknown)}")
    options.output.mkdir(parents=True, exist_ok=True)
    data = load(options.data, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    for name in names:
        train(name, data, options.output, epochs=options.epochs, seed=options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
