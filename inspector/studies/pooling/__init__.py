"""Networks with and without max-pooling: accuracy, and what their units reconstruct."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ImageRefused, UsageError
from inspector.measures.sharpness import COARSE, MEASURES
from inspector.measures.statistics import LEVEL, RESAMPLES
from inspector.passes.batches import Progress
from inspector.passes.journal import Journal
from inspector.studies import Findings, check_seed, study
from inspector.studies.pooling.comparison import Measured, accuracies, finding, pairs
from inspector.studies.pooling.networks import Network, opened
from inspector.studies.pooling.recognition import predictions, wanted_classes
from inspector.studies.pooling.structure import METHODS, OTHERS, Reconstructions, spread_out

if TYPE_CHECKING:
    from inspector.opened import Opened
    from inspector.photos.dataset import LabelledPhoto

__all__ = ["pooling"]

SHOWN = 8
"""Photos in the figure."""

MOST_RECONSTRUCTED = 1000
MOST_NETWORKS = 12

Entries = Mapping[int, Mapping[str, Any] | None]


@study("pooling", images=True, labelled=True, needs=("scipy",), draws=True)
def pooling(
    model: "Opened",
    images: "Iterable[LabelledPhoto]",
    *,
    against: tuple[str, ...] = (),
    layer: tuple[str, ...] = (),
    reconstructed: int = 100,
    extension: str = "refuse",
    seed: int = 0,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """Networks with max-pooling against networks without: accuracy and reconstructions.

    How many labelled photos each network gets right, and how much of a photo a person could
    recognise in what its strongest unit reconstructs by deconvnet, guided backpropagation and
    gradient. Tests whether the deconvnet fails where there is no max-pooling, and guided
    backpropagation does not (Springenberg et al. 2015, tables 2-3 and section 4).

    Args:
        model: The opened model.
        images: The photos and their classes.
        against: Another network, an ONNX file, opened with the same settings.
        layer: The layer to reconstruct from, as tensor name or index: one for all networks, or
            one for each in their order; when not given, the last with windows of more than one
            place before the class maps.
        reconstructed: Photos to reconstruct on, spread evenly over all, at most 1000.
        extension: The rule for smooth activations (SiLU, GELU): refuse, signal-first or
            gradient-first.
        seed: Of the bootstrap.
        progress: Called with (what, done, total) during long work.
        journal: Keeps what each network made of each photo.

    Returns:
        The figure; accuracies with intervals, facts of the graphs, measures with intervals and
        whether they are what the paper found.

    Raises:
        UsageError: labels that name no class, or options out of range.
        MethodRefused: a network without classes, or a reconstruction that cannot be right for it.
        ImageRefused: none of the photos can be read.
    """
    check_seed(seed)
    if not 1 <= reconstructed <= MOST_RECONSTRUCTED:
        raise UsageError(f"{reconstructed} photos", hint=f"1 to {MOST_RECONSTRUCTED}")
    if len(against) >= MOST_NETWORKS:
        raise UsageError(f"{len(against) + 1} networks", hint=f"at most {MOST_NETWORKS}")
    photos = list(images)
    if not photos:
        raise UsageError("no photos were given")
    journal = journal or Journal()
    networks = opened(model, against, layer, extension)
    wanted = wanted_classes(networks, list(dict.fromkeys(photo.label for photo in photos)))
    paths = [photo.path for photo in photos]

    refused: list[ImageRefused] = []
    guesses = [
        predictions(
            number,
            network,
            paths,
            refused=[] if number else refused,
            progress=progress,
            journal=journal,
        )
        for number, network in enumerate(networks)
    ]
    used = [place for place in range(len(photos)) if all(place in one for one in guesses)]
    if not used:
        raise refused[0]
    right = np.array(
        [
            [one[place] in classes[photos[place].label] for place in used]
            for one, classes in zip(guesses, wanted, strict=True)
        ]
    )

    places = [used[at] for at in spread_out(len(used), reconstructed)]
    sent = [Reconstructions(n, one, paths, extension) for n, one in enumerate(networks)]
    entries = [one.measure(places, progress, journal) for one in sent]
    measured = Measured.of(entries, seed)
    shown = [places[at] for at in spread_out(len(places), SHOWN)]
    for one in sent:
        one.draw(shown)

    shares = accuracies(right)
    warnings = _by_chance(networks, shares)
    warnings += _warnings(networks, guesses, entries, measured, len(places))
    warnings += [note for one in sent for note in one.notes]
    numbers = {
        "networks": [
            {
                **network.facts(),
                "accuracy": accuracy,
                "units_reconstructed": _units(found),
                "coverage": one.coverage,
                **(measured.numbers(place) if measured else {}),
            }
            for place, (network, accuracy, found, one) in enumerate(
                zip(networks, shares, entries, sent, strict=True)
            )
        ],
        "pairs": pairs(networks, right, seed),
        "paper": finding(networks, measured),
        "choices": {
            "interval": LEVEL,
            "bootstrap_samples": RESAMPLES,
            "measures": MEASURES,
            "photos_reconstructed": len(measured.places) if measured else 0,
            "photos_of_the_chance_level": min(OTHERS, max(len(used) - 1, 0)),
            "wider_gaussian": COARSE,
            "scale_in_pixels": [one.scale for one in sent],
        },
    }
    sentences = _sentences(networks, numbers)
    return Findings(
        study="pooling",
        context=model.context(None),
        options={
            "against": against,
            "layer": layer,
            "reconstructed": reconstructed,
            "extension": extension,
            "seed": seed,
        },
        numbers=numbers,
        table=_table(networks, photos, used=used, guesses=guesses, right=right, entries=entries),
        sentences=sentences,
        draw=partial(
            _figure,
            networks,
            numbers,
            sent,
            shown=shown,
            measures=MEASURES if measured else (),
            sentences=sentences[len(networks) :],
            warnings=warnings,
        ),
        images=len(used),
        refused=tuple(refused),
        warnings=tuple(warnings),
    )


# -- the result -----------------------------------------------------------------------------------


def _units(entries: Entries) -> dict[str, int]:
    """How many different units were the strongest, and on how many photos one and the same."""
    units = [entry["unit"] for entry in entries.values() if entry]
    return {
        "different": len(set(units)),
        "most_often": max(map(units.count, set(units)), default=0),
        "photos": len(units),
    }


def _no_gradient(entry: Mapping[str, Any]) -> bool:
    """Whether nothing comes back from a unit, so that nothing can be measured on it."""
    return all(value is None for value in entry["measures"]["gradient"].values())


def _warnings(
    networks: Sequence[Network],
    guesses: Sequence[Mapping[int, int | None]],
    entries: Sequence[Entries],
    measured: Measured | None,
    asked: int,
) -> list[str]:
    found = list(networks[0].model.preprocessing.warnings)
    for network, one, reconstructions in zip(networks, guesses, entries, strict=True):
        if network is not networks[0]:
            found += [f"{network.name}: {w}" for w in network.model.preprocessing.warnings]
        lost = sum(guess is None for guess in one.values())
        if lost:
            found.append(f"{network.name}: scores of {lost} photo(s) are not numbers: not right")
        if network.field.global_:
            found.append(f"{network.name}: units see the whole image ({network.field.why})")
        silent = sum(entry is None for entry in reconstructions.values())
        if silent:
            found.append(
                f"{network.name}: no unit of {network.layer} is active on {silent} photo(s)"
            )
        without = [entry for entry in reconstructions.values() if entry and _no_gradient(entry)]
        if without:
            found.append(
                f"{network.name}: the strongest unit of {network.layer} has no gradient on "
                f"{len(without)} photo(s): its activation is clipped there, as ReLU6 does; --layer "
                "with a layer that ends in an addition"
            )
    count = len(measured.places) if measured else 0
    if count < asked:
        found.append(
            f"measured on {count} of {asked} photos: on the others a measure is not defined for "
            "one of the networks" + ("" if count else " (a single photo has no chance level)")
        )
    if 0 < count < 20:
        found.append(f"{count} photos are few for a bootstrap: the intervals are too narrow")
    return found


def _by_chance(networks: Sequence[Network], shares: Sequence[Mapping[str, float]]) -> list[str]:
    return [
        f"{network.name} is right no more often than by chance (1 of {network.classes} classes): "
        "look at its preprocessing and class names before anything is read from this"
        for network, share in zip(networks, shares, strict=True)
        if share["low"] <= 1 / network.classes
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _sentences(networks: Sequence[Network], numbers: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    for entry in numbers["networks"]:
        accuracy = entry["accuracy"]
        found.append(
            f"{entry['name']}: right on {accuracy['right']} of {accuracy['photos']} photos, "
            f"{_percent(accuracy['share'])} ({_percent(accuracy['low'])} to "
            f"{_percent(accuracy['high'])}); {entry['max_poolings']} max-pooling(s), "
            f"{entry['strided_convolutions']} strided convolution(s)"
        )
    apart = [pair for pair in numbers["pairs"] if pair["mcnemar_p_holm"] < 1 - LEVEL]
    for pair in apart:
        first, second = pair["networks"]
        if pair["difference"] < 0:
            first, second = second, first
        points = 100 * abs(pair["difference"])
        found.append(
            f"{first} is right more often than {second}: by {points:.1f} percentage points "
            f"(McNemar's test, Holm's correction: p = {pair['mcnemar_p_holm']:.1g})"
        )
    if len(networks) > 1 and len(apart) < len(numbers["pairs"]):
        left = len(numbers["pairs"]) - len(apart)
        found.append(f"{left} of {len(numbers['pairs'])} differences in accuracy may be chance")
    if "measures" in numbers["networks"][0]:
        found += [_agreement(entry) for entry in numbers["networks"]]
        found.append(_verdict(numbers["paper"]))
    return tuple(found)


def _agreement(entry: Mapping[str, Any]) -> str:
    deconvnet, guided = (
        entry["measures"][method]["edge agreement"] for method in ("deconvnet", "guided-backprop")
    )
    way = "depends" if entry["deconvnet_depends_on_the_image"] else "does not depend"
    return (
        f"{entry['name']}, {entry['layer']}: edge agreement of deconvnet {_interval(deconvnet)}, "
        f"of guided backpropagation {_interval(guided)}: the deconvnet "
        + {"works": "works", "fails": "fails", "undecided": "neither works nor fails for certain"}[
            entry["deconvnet"]
        ]
        + f" (its way to the pixels {way} on the photo)"
    )


def _interval(three: Mapping[str, float]) -> str:
    return f"{three['mean']:.2f} ({three['low']:.2f} to {three['high']:.2f})"


def _verdict(paper: Mapping[str, Any]) -> str:
    parts = [
        f"{words}: {paper[key]}"
        for key, words in (
            ("without_max_pooling", "fails without max-pooling"),
            ("with_max_pooling", "works with it"),
        )
        if paper[key]
    ]
    return (
        f"the paper's finding about the deconvnet ({'; '.join(parts)}) on these networks: "
        f"{paper['finding']}"
    )


def _table(
    networks: Sequence[Network],
    photos: "Sequence[LabelledPhoto]",
    *,
    used: Sequence[int],
    guesses: Sequence[Mapping[int, int | None]],
    right: np.ndarray[Any, Any],
    entries: Sequence[Entries],
) -> list[dict[str, Any]]:
    rows = []
    for number, network in enumerate(networks):
        for at, place in enumerate(used):
            row = {
                "network": network.name,
                "image": photos[place].path.name,
                "label": photos[place].label,
                "predicted": guesses[number][place],
                "right": int(right[number, at]),
            }
            entry = entries[number].get(place)
            if entry:
                row["unit"] = entry["unit"]
                row |= {
                    f"{method} {name}": entry["measures"][method][name]
                    for method in METHODS
                    for name in MEASURES
                }
            rows.append(row)
    return rows


def _figure(
    networks: Sequence[Network],
    numbers: Mapping[str, Any],
    sent: Sequence[Reconstructions],
    *,
    shown: Sequence[int],
    measures: Sequence[str],
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:
    from inspector.studies.pooling.figure import Row, pooling_sheet

    rows = []
    for network, entry, made in zip(networks, numbers["networks"], sent, strict=True):
        pictures = [made.pictures.get(place) for place in shown]
        rows.append(
            Row(
                name=network.name,
                facts=entry,
                patches=[None if one is None else one.patch for one in pictures],
                signals={
                    m: [None if one is None else one.signals[m] for one in pictures]
                    for m in METHODS
                },
            )
        )
    return pooling_sheet(
        rows,
        measures=measures,
        methods=METHODS,
        sentences=sentences,
        notes=warnings,
    )
