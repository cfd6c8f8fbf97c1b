"""Faithfulness of the audit's own maps, beside maps that know nothing of the model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from inspector.audit.data_set import Entry
from inspector.audit.interventions import class_probabilities, interval_of
from inspector.audit.rows import Auditor, Row
from inspector.measures.faithfulness import Removal, reference_maps
from inspector.measures.imputation import neighbours

__all__ = ["faithfulness_of"]

Array = np.ndarray[Any, Any]

STEPS = 20
"""Points of a deletion or insertion curve."""


def faithfulness_of(
    auditor: Auditor, entries: Sequence[Entry], rows: Sequence[Row], photos: int, seed: int
) -> dict[str, Any] | None:
    """Deletion and insertion over some photos: the map, a random one, edges, the centre.

    The score is the probability of the predicted class; replaced pixels are linearly imputed
    (ROAD), so that the outline of what is missing says little.  Drop and increase in confidence
    (Chattopadhay et al. 2018) are of the input times the map, whose largest value is 1: by how much
    of itself the score falls (0 where it does not), and whether it rises.  The rows of the photos
    get their own numbers.

    Args:
        auditor: The opened model, a classifier.
        entries: The photos.
        rows: Their rows.
        photos: How many are drawn.
        seed: Of the draw, of ties and of the noise.

    Returns:
        Means with intervals, by measure (areas under the curves, drop, increase) and map; None
        where no photo has a map and a probability.
    """
    rng = np.random.default_rng(seed)
    known = [p for p, row in enumerate(rows) if row.get("index") is not None and not row["empty"]]
    chosen = sorted(rng.choice(known, min(photos, len(known)), replace=False).tolist())
    kinds = ("deletion", "insertion", "drop", "increase")
    areas: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    fill = neighbours(seed)
    for place in chosen:
        found, index = auditor.heat(entries[place]), int(rows[place]["index"])
        if found is None or class_probabilities(auditor.opened, found[0][None], index) is None:
            continue
        image, heat = found

        def score(images: Array, index: int = index) -> Array:
            own = class_probabilities(auditor.opened, images.astype(np.float32), index)
            return np.zeros(len(images)) if own is None else own

        removal = Removal(score, image, fill)
        for name, heatmap in {"map": heat, **reference_maps(image, seed)}.items():
            made = {
                "deletion": removal.deletion(heatmap, steps=STEPS, seed=seed).area,
                "insertion": removal.insertion(heatmap, steps=STEPS, seed=seed).area,
            }
            shown = image * (heatmap / max(float(heatmap.max()), 1e-30))
            whole, kept = (float(value) for value in score(np.stack([image, shown])))
            made["drop"] = max(0.0, whole - kept) / max(whole, 1e-30)
            made["increase"] = float(kept > whole)
            for kind, value in made.items():
                areas[kind].setdefault(name, []).append(value)
            if name == "map":
                rows[place].update({kind: round(value, 6) for kind, value in made.items()})
                rows[place]["increase"] = kept > whole
    if not areas["deletion"]:
        return None
    return {
        kind: {name: interval_of(np.array(values)) for name, values in own.items()}
        for kind, own in areas.items()
    }
