"""The measured table: each network's rows and columns, in turn within each round."""

import contextlib
import gc
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cold import Cold, measured, our_command, peer_command
from cost_networks import NETWORKS, Network, made
from ours import input_rows, layer_rows, runner
from peers import rows as peer_rows
from runs import Prepare, Run, counted

__all__ = ["OURS", "ROWS", "Costs", "costs_of", "networks"]

OURS = "inspector"

ROWS = {
    "grad-cam": "Grad-CAM",
    "guided-backprop": "guided backpropagation",
    "deconvnet": "deconvnet",
    "occlusion": "occlusion, per position",
    "ablation-cam": "Ablation-CAM, per channel",
    "score-cam": "Score-CAM, per channel",
    "rise": "RISE, per mask",
}

COLD_RUNS = 2
"""Runs of our program from the shell: the first also certifies the model. Others run once."""

Key = tuple[str, str]
"""Row and column."""

_BY_CELL = ("spent", "beside", "refused")


@dataclass
class Costs:
    """What was measured on one network.

    Attributes:
        name: The network.
        seconds: Processor time of the whole measurement.
        forward: CPU-seconds of F, one entry per round of each block.
        spent: CPU-seconds per unit, one entry per round, by row and column.
        beside: CPU-seconds of F in the same rounds, by row and column.
        refused: Why there are none, by row and column.
        cold: CPU-seconds and MiB from the shell to a picture, by program.
    """

    name: str
    seconds: float = 0.0
    forward: list[float] = field(default_factory=list)
    spent: dict[Key, list[float]] = field(default_factory=dict)
    beside: dict[Key, list[float]] = field(default_factory=dict)
    refused: dict[Key, str] = field(default_factory=dict)
    cold: dict[str, Cold] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return vars(self) | {name: list(getattr(self, name).items()) for name in _BY_CELL}

    @classmethod
    def of_dict(cls, kept: dict[str, Any]) -> "Costs":
        """What ``to_dict`` gave, read from JSON."""
        pairs = {
            name: {(row, column): value for (row, column), value in kept[name]} for name in _BY_CELL
        }
        return cls(**kept | pairs)

    @property
    def unit(self) -> float:
        """CPU-seconds of F."""
        return float(np.median(self.forward))

    def quartiles(self, row: str, column: str) -> tuple[float, ...] | None:
        """First quartile, median and third quartile in F; None where nothing was measured."""
        spent = self.spent.get((row, column))
        if not spent:
            return None
        unit = np.median(self.beside[row, column])
        return tuple((np.quantile(spent, (0.25, 0.5, 0.75)) / unit).tolist())


def costs_of(
    name: str, packages: Sequence[str], rounds: int, say: Callable[[str], None]
) -> Costs | None:
    """Measure one network; None where it cannot be made.

    Args:
        name: One of ``networks``.
        packages: Columns of peers.
        rounds: How often everything is run in turn.
        say: Called with what is being done.
    """
    start = sum(os.times()[:4])
    with tempfile.TemporaryDirectory() as folder:
        network = made(name, Path(folder))
        if network is None:
            return None
        found = Costs(name)
        _warm(found, network, packages, rounds, say)
        say(f"{name}: from the shell")
        _cold(found, network, packages, Path(folder))
    found.seconds = sum(os.times()[:4]) - start
    return found


def _warm(
    found: Costs,
    network: Network,
    packages: Sequence[str],
    rounds: int,
    say: Callable[[str], None],
) -> None:
    """Run the cells of each block, and F beside them, in turn within each round.

    All at once would hold VGG-16 some thirty times.
    """
    rng = np.random.default_rng(0)
    image = rng.random((1, 3, network.side, network.side)).astype(np.float32)
    run = runner(network)
    forward = counted(lambda: run(image))
    blocks = [(OURS, partial(rows, network, image)) for rows in (layer_rows, input_rows)]
    blocks += [(one, partial(peer_rows, one, network, image, run)) for one in packages]
    for column, rows_of in blocks:
        cells = {(row, column): prepare for row, prepare in rows_of().items()}
        warm = {key: _warmed_up(found, key, prepare) for key, prepare in cells.items()}
        runs = {key: one for key, one in warm.items() if one is not None}
        for _ in range(rounds):
            unit = forward.measure()
            found.forward.append(unit)
            for key, one in runs.items():
                with _quiet():
                    found.spent.setdefault(key, []).append(one.measure())
                found.beside.setdefault(key, []).append(unit)
        del cells, warm, runs
        gc.collect()
    for (row, column), reason in found.refused.items():
        say(f"{network.name}, {column}, {row}: {reason}")
    say(f"{network.name}: {len(found.spent)} cells, {rounds} rounds")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out progress bars, remarks and warnings of packages."""
    said = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        warnings.simplefilter("ignore")
        yield


def _warmed_up(found: Costs, key: Key, prepare: Prepare) -> Run | None:
    """A cell's run; None, and why, where there is no map."""
    try:
        with _quiet():
            return prepare()
    except Exception as error:  # noqa: BLE001 - of any package
        found.refused[key] = (str(error).strip() or type(error).__name__).splitlines()[0]
        return None


def _cold(found: Costs, network: Network, packages: Sequence[str], folder: Path) -> None:
    """Whole processes, in turn."""
    from PIL import Image

    photo, module = folder / "photo.png", folder / "module.pt"
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo)
    commands = {
        f"{OURS}, ONNX Runtime": our_command(network.path, photo, folder / "onnx", "onnx"),
        f"{OURS}, PyTorch": our_command(network.path, photo, folder / "twin", "twin"),
    }
    if network.module is not None and not network.tokens:
        import torch

        torch.save(network.module, module)
        commands |= {
            one: peer_command(one, module, network.layer, photo, folder / f"{one}.png")
            for one in packages
            if one != "dianna"
        }
    for label, command in commands.items():
        try:
            runs = [measured(command) for _ in range(COLD_RUNS if OURS in label else 1)]
        except RuntimeError as error:
            found.refused["cold", label] = str(error)
        else:
            found.cold[label] = min(runs)


def networks() -> Iterator[str]:
    """Names of all networks."""
    yield from NETWORKS
    yield "YOLOv8n"
