"""Cells of the truth table: one number whose right value is known, per method and case."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from exact_units import RIGHT, UNITS, unit
from our_maps import METHODS, maps
from peer_maps import PEERS, answer
from tetrominoes import BACKGROUNDS, KINDS, tetromino

from inspector.measures.faithfulness import reference_maps
from inspector.measures.statistics import mean_interval

__all__ = ["INT8", "Cell", "Cells", "exact", "trained"]

INT8 = ("planted", "suppressor")
"""Units that are asked once more as int8 networks, which no package for PyTorch modules takes."""

OURS, NOTHING = "onnx-inspector", "nothing known of the network"

Progress = Callable[[str], None]


@dataclass
class Cell:
    """What one method answered to pictures of one case.

    Attributes:
        numbers: Of the maps that it gave.
        refused: How many it refused or failed at.
        said: How many maps came with words that it does not also say of a right map.
        words: The last refusal or such words.
        floor: What a map that knows nothing of the network reaches; a right map exceeds it.
        needed: The number from which a map is right; None where ``floor`` decides.
    """

    numbers: list[float] = field(default_factory=list)
    refused: int = 0
    said: int = 0
    words: str = ""
    floor: float = 0.0
    needed: float | None = RIGHT

    def add(self, case: Any, values: Any, words: str, standing: str = "") -> None:
        """Count one answer.

        Args:
            case: With a method ``number``.
            values: The map; None where there is none.
            words: What the method said.
            standing: What it says of a right map too.
        """
        if values is None:
            self.refused += 1
            self.words = words
            return
        self.numbers.append(case.number(values))
        own = [text for text in words.split("; ") if text and text not in standing]
        if own:
            self.said += 1
            self.words = "; ".join(own)

    @property
    def interval(self) -> tuple[float, float, float]:
        """Mean of the numbers and its 95 % interval."""
        return mean_interval(np.array(self.numbers), 0.0)

    @property
    def state(self) -> str:
        """``right``, ``refused``, ``said`` (wrong, with a word) or ``wrong`` (without one)."""
        if not self.numbers:
            return "refused"
        mean, low, _ = self.interval
        if low > self.floor if self.needed is None else mean >= self.needed:
            return "right"
        return "said" if self.said == len(self.numbers) else "wrong"


Cells = Mapping[tuple[str, str], Mapping[str, Cell]]
"""Cells by (package, method), then by case."""


def exact(seeds: int, packages: Sequence[str], progress: Progress = print) -> Cells:
    """Every method on every exact unit.

    Args:
        seeds: Pictures per unit.
        packages: Of others, keys of `PEERS`.
        progress: Called with each unit's name.
    """
    found: dict[tuple[str, str], dict[str, Cell]] = {}
    for seed in range(seeds):
        standing = _standing(packages, seed)
        for name in UNITS:
            progress(f"exact units: {name}, picture {seed + 1} of {seeds}")
            case = unit(name, seed)
            for key, (values, words) in _answers(partial(unit, name, seed), packages, seed):
                cell = found.setdefault(key, {}).setdefault(name, Cell())
                cell.add(case, values, words, standing[key])
        for name in INT8:
            case = unit(name, seed)
            for key, (values, words) in _ours(case, quantised=True):
                cell = found[key].setdefault(f"{name}, int8", Cell())
                cell.add(case, values, words, standing[key])
    return found


def trained(
    networks: int, pictures: int, packages: Sequence[str], progress: Progress = print
) -> tuple[Cells, Mapping[str, float]]:
    """Every method on the tetrominoes, and the accuracy of the networks by case.

    Args:
        networks: Per kind and background.
        pictures: Per network.
        packages: Of others, keys of `PEERS`.
        progress: Called with each network's name.
    """
    found: dict[tuple[str, str], dict[str, Cell]] = {}
    accuracies: dict[str, list[float]] = {}
    standing = _standing(packages, 0)
    for kind in KINDS:
        for background in BACKGROUNDS:
            for seed in range(networks):
                progress(f"tetrominoes: {kind}, {background}, network {seed + 1} of {networks}")
                for picture in range(pictures):
                    make = partial(tetromino, kind, background, seed, picture)
                    case = make()
                    for key, (values, words) in _answers(make, packages, seed + picture):
                        own = found.setdefault(key, {})
                        cell = own.setdefault(case.name, Cell(needed=None))
                        cell.add(case, values, words, standing[key])
                accuracies.setdefault(case.name, []).append(case.accuracy)
    for name in accuracies:
        blind = [own[name].interval[0] for (package, _), own in found.items() if package == NOTHING]
        for own in found.values():
            own[name].floor = max(blind)
    return found, {name: float(np.mean(own)) for name, own in accuracies.items()}


def _standing(packages: Sequence[str], seed: int) -> dict[tuple[str, str], str]:
    """Words that each method says of a right map too."""
    right = _answers(partial(unit, "planted", seed), packages, seed)
    return {key: words for key, (_, words) in right}


def _answers(
    make: Callable[[], Any], packages: Sequence[str], seed: int
) -> Iterator[tuple[tuple[str, str], tuple[Any, str]]]:
    """Answers of all; a package that fails may leave hooks behind, so each gets a new case."""
    case = make()
    for name, values in reference_maps(case.image[0].numpy(), seed).items():
        yield (NOTHING, name), (values, "")
    yield from _ours(case)
    for package in packages:
        for method, text in PEERS[package].items():
            yield (package, method), answer(text, make())


def _ours(
    case: Any, *, quantised: bool = False
) -> Iterator[tuple[tuple[str, str], tuple[Any, str]]]:
    for name, one in maps(case, METHODS, quantised=quantised).items():
        yield (OURS, name), (one.values, one.said)
