"""Whether maps say what the score depends on, beside maps that know nothing of the model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.evidence import Evidence
from inspector.evidence.local_forward import LocalForward
from inspector.heatmap import Heatmap
from inspector.measures.faithfulness import Box
from inspector.measures.statistics import mean_interval
from inspector.methods import Request, parse_requests
from inspector.passes.batches import Progress, batches
from inspector.passes.journal import Journal
from inspector.passes.maps import Map
from inspector.photos.geometry import Geometry
from inspector.run import ExplainRun
from inspector.studies import Findings, check_seed, study
from inspector.studies.faithfulness.grid import Pictured, pointing
from inspector.studies.faithfulness.measured import MEASURES, Asked, agreement, of_map

if TYPE_CHECKING:
    from inspector.opened import Opened
    from inspector.target import Target

__all__ = ["faithfulness"]

Array = np.ndarray[Any, Any]

BATCH = 32
"""Changed copies of an input that go through the network at a time."""

_USUAL = ("gradient", "input-x-gradient", "grad-cam", "hires-cam", "layer-cam")


@study("faithfulness", images=True, needs=("scipy",), draws=True)
def faithfulness(
    model: "Opened",
    images: Iterable[Any],
    *,
    method: tuple[str, ...] = (),
    target: str = "top1",
    count: int = 8,
    steps: int = 20,
    subsets: int = 50,
    copies: int = 0,
    grid: int = 0,
    mosaics: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """How faithful the maps of methods are, beside a random map, an edge detector and the centre.

    Deletion and insertion (Petsiuk et al. 2018), ROAD (Rong et al. 2022), sensitivity-n (Ancona et
    al. 2018), infidelity and max-sensitivity (Yeh et al. 2019), how far the methods agree, and the
    grid pointing game (Böhle et al. 2021). The score is that before softmax, divided by its
    magnitude on the whole photo; replaced pixels are imputed from their neighbours. A photo
    costs 2 (subsets + 1) forward passes, one map of it at most 2 (steps - 1) + 18 more (what the
    curves and ROAD remove alike is asked once), and each copy one map.

    Args:
        model: The opened model.
        images: The photos, as paths or in memory.
        method: Methods with options, as `explain` takes them; five common ones when none is given.
        target: What is explained of each photo, as in `explain`.
        count: Photos to use, the first ones that can be read.
        steps: Points of a deletion or insertion curve.
        subsets: Sets of pixels that sensitivity-n and infidelity draw.
        copies: Slightly changed copies of each photo for max-sensitivity; 0 leaves it out.
        grid: Photos along a side of the mosaics of the grid pointing game, 2 or 3; 0 leaves it out.
        mosaics: Mosaics of that game.
        seed: Of all draws.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what was found for each photo.

    Returns:
        The figure, and each measure's mean and interval by method.

    Raises:
        UsageError: options out of range.
        ImageRefused: none of the photos can be read.
    """
    check_seed(seed)
    _check(count=count, steps=steps, subsets=subsets, copies=copies, grid=grid, mosaics=mosaics)
    requests = parse_requests(list(method) or _usual(model))
    asked = Asked(steps=steps, subsets=subsets, copies=copies, seed=seed)
    journal = Journal() if journal is None else journal
    refused: list[ImageRefused] = []
    tensors: list[Array] = []
    names: list[tuple[str, str]] = []
    for batch in batches(model, images, refused):
        tensors += list(batch.tensors[: count - len(tensors)])
        names += [(photo.name, photo.sha256) for photo in batch.photos]
        if len(tensors) == count:
            break
    if not tensors:
        raise refused[0] if refused else UsageError("no photos were given")
    explained = _Explained(model, requests, len(tensors))
    rows: list[dict[str, Any]] = []
    pictured: list[Pictured] = []
    for done, (tensor, (photo, digest)) in enumerate(zip(tensors, names, strict=False)):
        key = f"{done}:{digest}"
        if key not in journal:
            journal.keep(key, explained.measured(tensor, target, asked))
        rows += [{"photo": photo, **row} for row in journal[key]["rows"]]
        if (known := journal[key]["class"]) is not None:
            pictured.append(Pictured(photo, tensor, known[0], known[1]))
        if progress:
            progress("photos", done + 1, len(tensors))
    played = []
    if grid:
        played = _played(
            explained, pictured, side=grid, mosaics=mosaics, seed=seed, journal=journal
        )
    table = _means([*rows, *played])
    sentences = _sentences(table, len(tensors), grid, len(played))
    warnings = _warnings(table, requests, len(tensors), count, grid=grid, played=bool(played))
    return Findings(
        study="faithfulness",
        context=model.context(None),
        options={
            "method": [request.label for request in requests],
            "target": target,
            "count": count,
            "steps": steps,
            "subsets": subsets,
            "copies": copies,
            "grid": grid,
            "mosaics": mosaics,
            "seed": seed,
        },
        numbers={
            "measures": {name: words for name, (words, _) in MEASURES.items()},
            "methods": table,
        },
        table=[*rows, *played],
        sentences=sentences,
        draw=partial(_figure, table, model.path.name, sentences, warnings),
        images=len(tensors),
        refused=tuple(refused),
        warnings=warnings,
    )


def _usual(model: "Opened") -> list[str]:
    return [name for name in _USUAL if model.layers or "gradient" in name]


def _check(**options: int) -> None:
    """Refuse options out of range.

    Raises:
        UsageError: One is.
    """
    for name, value in options.items():
        least = 0 if name in {"copies", "grid"} else 1
        if value < least:
            raise UsageError(f"{name} = {value}", hint=f"{least} or more")
    if options["grid"] not in {0, 2, 3}:
        raise UsageError(f"grid = {options['grid']}", hint="2 or 3, or 0 to leave the game out")


class _Explained:
    """Maps and scores of inputs that are preprocessed already."""

    def __init__(self, model: "Opened", requests: Sequence[Request], photos: int = 1) -> None:
        self.model, self.requests, self.photos = model, requests, photos
        self.texts = [_text(request) for request in requests]

    def maps(self, tensor: Array, target: str) -> tuple[dict[str, Array], "Target"]:
        """Maps (H, W) of one input by method, those that are drawn, and its target.

        Raises:
            UsageError: Several targets are asked for.
        """
        run = ExplainRun(self.model, self.texts, target, None, None)
        values = run.forward(tensor[None])
        (targets,) = run.targets(values, 1)
        if len(targets) != 1:
            raise UsageError(f"{target!r} names several targets", hint="ask for one")
        geometry = Geometry.identity((tensor.shape[1], tensor.shape[2]))
        found = {
            one.request.label: np.nan_to_num(Heatmap.of(one.attribution, geometry).values)
            for one in run.maps(tensor[None], values, [targets])[0]
            if isinstance(one, Map)
        }
        return found, targets[0]

    def scores(self, images: Array, target: "Target") -> Array:
        """Scores (N,) of inputs (N, C, H, W), before softmax."""
        batch = images.astype(np.float32)
        return self._asked(batch, target).score(batch, [target] * len(batch))

    def _asked(self, images: Array, target: "Target") -> Evidence:
        preprocess = self.model.preprocessing.preprocess
        return Evidence(self.model.model, images, [target], {}, layer=None, preprocess=preprocess)

    def patched(
        self, tensor: Array, target: "Target", patches: Mapping[Box, Array]
    ) -> dict[Box, float]:
        """Scores of one input with one box changed, by box, given what stands in each.

        Early stages run on crops where that pays; see ``evidence.local_forward``.
        """
        boxes, network = list(patches), self.model.model
        asked = self._asked(tensor[None], target)
        local = LocalForward(network, tensor, boxes, patches, target.read_from, images=self.photos)
        found: dict[Box, float] = {}
        for batch in local.batches(BATCH):
            some = [boxes[number] for number in batch]
            scores = asked.score(some, [target] * len(some), local)
            found |= dict(zip(some, scores.tolist(), strict=True))
        return found

    def measured(self, tensor: Array, target: str, asked: Asked) -> dict[str, Any]:
        """Rows of one photo: method, measure, value; and its class with its score, if any."""
        drawn, own = self.maps(tensor, target)
        whole = abs(float(self.scores(tensor[None], own)[0])) or 1.0

        def score(images: Array) -> Array:
            return self.scores(images, own) / whole

        def patched(patches: Mapping[Box, Array]) -> dict[Box, float]:
            found = self.patched(tensor, own, patches)
            return {box: value / whole for box, value in found.items()}

        again: dict[str, Callable[[Array], Array]] = {
            label: partial(self._again, label, target, own) for label in drawn
        }
        rows = [
            {"method": label, "measure": measure, "value": round(value, 6)}
            for label, measure, value in of_map(score, tensor, drawn, again, asked, patched=patched)
            if np.isfinite(value)
        ]
        known = None if own.class_index is None else [int(own.class_index), whole]
        return {"rows": rows + agreement(drawn), "class": known}

    def _again(self, label: str, target: str, own: "Target", images: Array) -> Array:
        """Maps (N, H, W) of one method on other inputs, of the same target."""
        text = self.texts[[request.label for request in self.requests].index(label)]
        named = target if own.class_index is None else str(own.class_index)
        explained = _Explained(self.model, parse_requests([text]))
        found = [explained.maps(image, named)[0] for image in images]
        return np.stack([maps.get(label, np.zeros(images.shape[2:])) for maps in found])


def _text(request: Request) -> str:
    options = ",".join(f"{key}={value}" for key, value in request.options.items())
    return f"{request.method.name}:{options}" if options else request.method.name


def _played(
    explained: _Explained,
    pictured: Sequence[Pictured],
    *,
    side: int,
    mosaics: int,
    seed: int,
    journal: Journal,
) -> list[dict[str, Any]]:
    key = f"grid:{side}:{mosaics}:{len(pictured)}"
    if key not in journal:
        journal.keep(key, list(pointing(pictured, side, mosaics, seed, explained.maps)))
    found: list[dict[str, Any]] = journal[key]
    return found


# -- the result -----------------------------------------------------------------------------------


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per method and measure the mean, its 95 % interval and the number of maps."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        values.setdefault(row["method"], {}).setdefault(row["measure"], []).append(row["value"])
    found: dict[str, dict[str, Any]] = {}
    for label, own in values.items():
        found[label] = {}
        for measure, numbers in own.items():
            mean, low, high = mean_interval(np.array(numbers), 0.0)
            found[label][measure] = {
                "value": mean,
                "low": low,
                "high": high,
                "maps": len(numbers),
            }
    return found


def _sentences(
    table: dict[str, dict[str, Any]], photos: int, grid: int, played: int
) -> tuple[str, ...]:
    found = []
    for label, own in table.items():
        if label.startswith("("):
            continue
        worse = [
            name
            for name, (_, high) in MEASURES.items()
            if high is not None and name in own and not _above(table, label, name, high=high)
        ]
        shown = ", ".join(f"{name} {own[name]['value']:z.2f}" for name in MEASURES if name in own)
        said = f"; not better than what knows nothing of the model in {', '.join(worse)}"
        found.append(f"{label}: {shown}{said if worse else ''}")
    if grid and played:
        found.append(
            f"grid: a map that knows nothing has {1 / grid**2:.2f} of its evidence in the right "
            "cell"
        )
    found.append(f"{photos} photo(s)")
    return tuple(found)


def _above(table: dict[str, dict[str, Any]], label: str, name: str, *, high: bool) -> bool:
    """Whether a method's interval lies on the good side of every map that knows nothing."""
    own = table[label][name]
    blind = [row[name]["value"] for key, row in table.items() if key[0] == "(" and name in row]
    if not blind:
        return True
    return bool(own["low"] > max(blind)) if high else bool(own["high"] < min(blind))


def _warnings(
    table: dict[str, dict[str, Any]],
    requests: Sequence[Request],
    photos: int,
    count: int,
    *,
    grid: int,
    played: bool,
) -> tuple[str, ...]:
    found = []
    missing = [request.label for request in requests if request.label not in table]
    if missing:
        found.append(f"no map of {', '.join(missing)}: `inspector explain` says why")
    if photos < count:
        found.append(f"{photos} photo(s), fewer than the {count} of --count")
    if grid and not played:
        found.append(
            f"no mosaic: the game needs {grid**2} photos of different classes that the network is "
            "sure of"
        )
    return tuple(found)


def _figure(*args: Any) -> Any:
    from inspector.studies.faithfulness.figure import faithfulness_sheet

    return faithfulness_sheet(*args)
