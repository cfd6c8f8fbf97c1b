"""An audit as a data set of FiftyOne: photos with labels, predictions, boxes and heatmaps.

The files of its format ``FiftyOneDataset`` that do not depend on the version of its database:
FiftyOne infers the fields from the samples::

    fiftyone.Dataset.from_dir("audit/fiftyone", dataset_type=fiftyone.types.FiftyOneDataset)

Source: FiftyOne's user guide, "FiftyOneDataset" (metadata.json, samples.json, fields/).
"""

import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from converters.plain_values import finite_number
from inspector.render import File
from inspector.render.audit_facts import entries, part, visible

__all__ = ["FOLDER", "Box", "files", "small_map"]

Array = np.ndarray[Any, Any]

FOLDER = "fiftyone"
"""Folder of the files."""

Box = tuple[str | None, tuple[float, float, float, float]]
"""Class of an object, and its left, top, width and height in shares of the photo."""

_NUMBERS = (
    *("probability", "label_probability", "inside_box", "box_area", "inside_mask", "mask_area"),
    *("entropy", "border", "drop", "deletion", "insertion"),
)
_FLAGS = ("correct", "in_top5", "pointing", "increase", "empty")
_TEXTS = ("cluster", "method", "layer", "refused")


def files(
    document: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    places: Mapping[str, str],
    boxes: Mapping[str, Sequence[Box]],
) -> Iterator[File]:
    """The files, by names below ``FOLDER``.

    Args:
        document: The report as plain data.
        rows: Rows of the photos, with their small maps.
        places: Path of each photo from ``FOLDER``.
        boxes: What lies on each photo where.
    """
    tags = _tags(document)
    groups = [str(name) for name in part(document, "data").get("groups") or ()]
    samples = []
    for number, row in enumerate(rows):
        sample: dict[str, Any] = {
            "filepath": visible(places[row["photo"]]),
            "tags": tags.get(row["photo"], []),
        }
        sample |= _classified(row)
        if boxes.get(row["photo"]):
            found = [_detection(box) for box in boxes[row["photo"]]]
            sample["objects"] = {"_cls": "Detections", "detections": found}
        heat = small_map(row.get("grid"))
        if heat is not None:
            name = f"fields/heatmap/{number:07}.png"
            yield File(name, lambda heat=heat: _png(heat))  # type: ignore[misc]
            sample["heatmap"] = {"_cls": "Heatmap", "tags": [], "map_path": name}
            sample["heatmap"]["range"] = [0, 255]
        for name in (*_NUMBERS, *_FLAGS, *_TEXTS):
            if row.get(name) is not None:
                value = row[name]
                sample[name] = visible(value) if isinstance(value, str) else value
        sample |= {_field(name): visible(row[name]) for name in groups if row.get(name)}
        samples.append(sample)
    info = {
        "model": part(part(document, "model"), "model").get("sha256"),
        "verdict": visible(part(document, "verdict").get("sentence")),
        "run": part(document, "run").get("identity"),
    }
    described = {"name": "onnx-inspector-audit", "media_type": "image", "info": info}
    yield File("metadata.json", lambda: _json(described))
    yield File("samples.json", lambda: _json({"samples": samples}))


def small_map(digits: object) -> Array | None:
    """A row's small map (h, h) of 0 to 255; None where it has none."""
    if not isinstance(digits, str) or not digits:
        return None
    values = np.frombuffer(bytes.fromhex(digits), np.uint8)
    side = math.isqrt(values.size)
    return values.reshape(side, side)


def _tags(document: Mapping[str, Any]) -> dict[str, list[str]]:
    """Per photo the findings that rest on it, and whether it is suspicious."""
    found: dict[str, list[str]] = {}
    for one in entries(document, "suspicious"):
        found.setdefault(str(one.get("photo")), []).append("suspicious")
    for one in entries(document, "findings"):
        for photo in one.get("photos") or ():
            found.setdefault(str(photo), []).append(visible(one.get("id")))
    return found


def _classified(row: Mapping[str, Any]) -> dict[str, Any]:
    """Label and prediction as classifications."""
    made: dict[str, Any] = {}
    for field, name, sure in (
        ("ground_truth", "label", None),
        ("prediction", "predicted", finite_number(row.get("probability"))),
    ):
        if row.get(name) is not None:
            made[field] = {"_cls": "Classification", "tags": [], "label": visible(row[name])}
            made[field]["confidence"] = sure
    return made


def _detection(box: Box) -> dict[str, Any]:
    label, corners = box
    made: dict[str, Any] = {"_cls": "Detection", "tags": [], "attributes": {}}
    return {**made, "label": visible(label), "bounding_box": [round(v, 6) for v in corners]}


def _field(name: str) -> str:
    """A group's name as a field: FiftyOne knows letters, digits and underscores."""
    return "group_" + re.sub(r"\W", "_", name, flags=re.ASCII)


def _png(values: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def _json(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=True, allow_nan=False, indent=1) + "\n").encode()
