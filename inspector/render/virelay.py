"""An audit as a project of ViRelAy: small photos, their maps, and the clusters of each class.

Three databases in HDF5, `dataset.h5` (pictures), `attribution.h5` (maps, predictions) and
`analysis.h5` (per predicted class the clusters, and the first two principal components of its
maps), and the project file that names them::

    virelay audit/virelay/project.yaml

Source: ViRelAy's user guide, "Project file format" and "Database specification" (0.6).
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from converters.plain_values import finite_number
from inspector.errors import require
from inspector.render import File
from inspector.render.audit_facts import model_facts, visible
from inspector.render.fiftyone import small_map

__all__ = ["FOLDER", "SIDE", "check", "files"]

Array = np.ndarray[Any, Any]

FOLDER = "virelay"
"""Folder of the files."""

SIDE = 64
"""Side of pictures and maps, in pixels."""

_UNLABELLED = "(no label)"


def check() -> None:
    """Refuse to begin where the files could not be written.

    Raises:
        MissingExtra: h5py or PyYAML is not installed.
    """
    require("h5py", "an export for ViRelAy", "virelay")
    require("yaml", "an export for ViRelAy", "virelay")


def files(
    document: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    picture: Callable[[Mapping[str, Any]], Image.Image],
) -> Iterator[File]:
    """The files, by names below ``FOLDER``; of photos that have a map and a prediction.

    Args:
        document: The report as plain data.
        rows: Rows of the photos, with their small maps.
        picture: Opens the small photo of a row.

    Raises:
        MissingExtra: h5py or PyYAML is not installed.
    """
    check()
    import yaml  # type: ignore[import-untyped]

    known = [row for row in rows if row.get("grid") and row.get("predicted") is not None]
    names = {str(row[key]) for row in known for key in ("label", "predicted") if row[key]}
    classes = [*sorted(names), _UNLABELLED]
    place = {name: number for number, name in enumerate(classes)}
    labels = np.array([place[str(r["label"] or _UNLABELLED)] for r in known], np.uint16)
    predicted = np.array([place[str(r["predicted"])] for r in known], np.int64)
    maps = [_map(row) for row in known]
    yield File("dataset.h5", lambda: _hdf5(_dataset(known, labels, picture)))
    yield File("attribution.h5", lambda: _hdf5(_attribution(known, maps, labels, predicted, place)))
    yield File("analysis.h5", lambda: _hdf5(dict(_analysis(known, maps, predicted))))
    described = [
        {"index": number, "word_net_id": _category(number), "name": visible(name)}
        for number, name in enumerate(classes)
    ]
    yield File("label-map.json", lambda: json.dumps(described, indent=1).encode())
    method = visible(known[0].get("method")) if known else ""
    project = {
        "name": "Audit by onnx-inspector",
        "model": visible(model_facts(document).get("name") or "model"),
        "label_map": "label-map.json",
        "dataset": {"name": "photos", "type": "hdf5", "path": "dataset.h5"},
        "attributions": {
            "attribution_method": method,
            "attribution_strategy": "predicted class",
            "sources": ["attribution.h5"],
        },
        "analyses": [{"analysis_method": "spectral clusters", "sources": ["analysis.h5"]}],
    }
    yield File("project.yaml", lambda: yaml.safe_dump({"project": project}).encode())


def _category(number: int) -> str:
    """Name of a class in the databases, in which "/" would be a folder."""
    return f"class-{number:05}"


def _map(row: Mapping[str, Any]) -> Array:
    """The map of a row, (SIDE, SIDE) from 0 to 1."""
    values = small_map(row["grid"])
    picture = Image.fromarray(np.asarray(values, np.float32) / 255)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)


def _dataset(
    rows: Sequence[Mapping[str, Any]],
    labels: Array,
    picture: Callable[[Mapping[str, Any]], Image.Image],
) -> dict[str, Array]:
    data = np.zeros((len(rows), SIDE, SIDE, 3), np.uint8)
    for number, row in enumerate(rows):
        data[number] = np.asarray(picture(row).convert("RGB").resize((SIDE, SIDE)))
    return {"data": data, "label": labels}


def _attribution(
    rows: Sequence[Mapping[str, Any]],
    maps: Sequence[Array],
    labels: Array,
    predicted: Array,
    place: Mapping[str, int],
) -> dict[str, Array]:
    """Maps (N, 3, SIDE, SIDE) and, of the predicted class alone, probabilities (N, classes).

    ViRelAy adds up the channels, and draws no map of a single one: each has a third.
    """
    prediction = np.zeros((len(rows), len(place)), np.float32)
    for number, row in enumerate(rows):
        sure = finite_number(row.get("probability"))
        prediction[number, predicted[number]] = 1.0 if sure is None else sure
    stacked = np.stack(maps)[:, None] if maps else np.zeros((0, 1, SIDE, SIDE), np.float32)
    thirds = np.repeat(stacked / 3, 3, axis=1)
    return {"attribution": thirds, "prediction": prediction, "label": labels}


def _analysis(
    rows: Sequence[Mapping[str, Any]], maps: Sequence[Array], predicted: Array
) -> Iterator[tuple[str, Array]]:
    """Clusters and an embedding of each predicted class, with the photos' places."""
    for number in np.unique(predicted):
        own = np.flatnonzero(predicted == number).tolist()
        within = f"{_category(int(number))}/"
        names = [str(rows[i].get("cluster") or "") for i in own]
        known = {name: place for place, name in enumerate(sorted({*names, ""}))}
        yield within + "index", np.array(own, np.uint32)
        yield within + "cluster/spectral", np.array([known[name] for name in names], np.int64)
        flat = np.stack([maps[i].ravel() for i in own]).astype(np.float64)
        yield within + "embedding/pca", _components(flat)


def _components(flat: Array) -> Array:
    """The first two principal components (N, 2) of some maps (N, K), their signs fixed."""
    centred = flat - flat.mean(0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    found = np.zeros((len(flat), 2))
    for axis, direction in enumerate(directions[:2]):
        sign = np.sign(direction[np.argmax(np.abs(direction))]) or 1.0
        found[:, axis] = centred @ (sign * direction)
    return found.astype(np.float32)


def _hdf5(arrays: Mapping[str, Array]) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return buffer.getvalue()
