"""Rows of the photos as JSON inside the page, and what is known of their columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from inspector.render.audit_facts import entries, part, visible
from inspector.render.html.inline import script_json

__all__ = ["PRIMARY", "table"]

PRIMARY = (
    "photo", "rank", "label", "predicted", "probability", "correct", "inside_box", "border",
    "entropy", "drop", "deletion", "insertion", "cluster",
)  # fmt: skip
"""Columns of the table; the others stand beside the photo alone."""

_HEADINGS = {
    "photo": "Photo",
    "label": "Label",
    "predicted": "Predicted",
    "probability": "Probability",
    "label_probability": "Probability of the label",
    "correct": "Correct",
    "in_top5": "In top 5",
    "inside_box": "Inside box",
    "box_area": "Area of box",
    "inside_mask": "Inside mask",
    "mask_area": "Area of mask",
    "centre_y": "Centre of mass, y",
    "centre_x": "Centre of mass, x",
    "border": "On border",
    "pointing": "Peak in box",
    "pointing_centre": "Photo's centre in box",
    "rank": "Suspicion rank",
    "reasons": "Reasons",
    "empty": "Empty map",
    "item": "Item",
    "drop": "Drop",
    "increase": "Increase",
    "seconds": "Seconds",
    "refused": "Refused",
}
_HIDDEN = {"grid"}  # a small map, which clusters are made of
_PICTURES = ("thumbnail", "heat", "heats")


def table(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """JSON of the rows that may stand inside a ``script`` element.

    Args:
        document: The report, which says what is suspicious and which photos a finding rests on.
        rows: Rows of the photos.
    """
    suspicious = {str(found.get("photo")): found for found in entries(document, "suspicious")}
    full = [{**row, **_suspicion(suspicious.get(str(row.get("photo"))))} for row in rows]
    names = _columns(full)
    groups = [str(name) for name in part(document, "data").get("groups") or ()]
    shown = [name for name in (*PRIMARY, *groups) if name in names]
    content = {
        "columns": [
            {
                "name": visible(name),
                "heading": visible(_HEADINGS.get(name, name.replace("_", " ").capitalize())),
                "shown": name in shown,
                "group": name in groups,
                "numeric": any(_numeric(row.get(name)) for row in full),
            }
            for name in names
        ],
        "shown": [names.index(name) for name in shown],
        "rows": [[_cell(row.get(name)) for name in names] for row in full],
        "findings": {
            visible(found.get("id")): [visible(photo) for photo in found.get("photos") or ()]
            for found in entries(document, "findings")
        },
    }
    return script_json(content)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns in which any photo has a value; those of pictures always."""
    names = dict.fromkeys(name for row in rows for name in row)
    used = {name for row in rows for name, value in row.items() if value is not None}
    used -= _HIDDEN
    return ["photo", *(n for n in names if n != "photo" and (n in used or n in _PICTURES))]


def _suspicion(found: Mapping[str, Any] | None) -> dict[str, Any]:
    if found is None:
        return {"rank": None, "reasons": None}
    return {"rank": found.get("rank"), "reasons": "; ".join(found.get("reasons") or ())}


def _cell(value: object) -> object:
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {visible(key): _cell(item) for key, item in value.items()}
    return visible(value)


def _numeric(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
