"""Reports of an audit as plain data, and their rows, built for tests of gates and formats."""

import math
from typing import Any

HOSTILE = "a\x00b</script><img src=x onerror=alert(1)>]]>\u202e&\"'\ud800 ü %2e"
"""A name with all that a format may stumble over."""


def stat(value, low=None, high=None, photos=12):
    """A number with its interval."""
    low = value - 0.1 if low is None else low
    high = value + 0.1 if high is None else high
    return {"value": value, "low": round(low, 6), "high": round(high, 6), "photos": photos}


def metrics(photos=12, **values):
    """Metrics of a set of photos; those that are not named have no value."""
    names = (
        "top1", "top5", "confidence", "inside_box", "box_area", "inside_mask", "mask_area",
        "pointing", "pointing_centre", "border", "entropy", "drop", "increase", "empty", "seconds",
    )  # fmt: skip
    return {"photos": photos, **{name: values.get(name) for name in names}}


def audit_document(**changes: Any) -> dict[str, Any]:
    """A small report in which every part says something."""
    document = {
        "schema": 1,
        "lock": None,
        "program": {"name": "onnx-inspector", "version": "0.1.0"},
        "run": {"identity": "cd" * 32},
        "verdict": {
            "passed": False,
            "sentence": "Not passed, of 3 declared: 1 threshold not met, 1 threshold not checked.",
            "reasons": [
                "top1 is 0.75, below 0.8",
                "could not be checked: top5 has no value, no photo has a label",
            ],
        },
        "thresholds": [
            {"fail_if": "top1 < 0.8", "source": "command line", "value": 0.75, "failed": True,
             "text": "top1 is 0.75, below 0.8"},
            {"fail_if": "top5 < 0.9", "source": "audit.toml", "value": None, "failed": None,
             "text": "could not be checked: top5 has no value, no photo has a label"},
            {"fail_if": "refused > 5", "source": "audit.toml", "value": 1, "failed": False,
             "text": "refused is 1, not above 5"},
        ],
        "declared": "2026-11-30T01:02:03Z",
        "model": {
            "name": "model.onnx", "sha256": "ab" * 32, "producer": "pytorch 2.10",
            "opsets": {"ai.onnx": 17}, "scores": "logits", "activation": "softmax",
            "labels": "model metadata",
        },
        "task": {"name": "classifier", "reason": "one score per class"},
        "certificate": {"passed": True, "text": "the twin agrees with ONNX Runtime"},
        "data": {
            "source": "folder", "kind": "class folders", "photos": 13, "audited": 12,
            "refused": [{"photo": "dog/broken.jpg", "reason": "is truncated"}],
            "labelled": 12, "boxed": 8, "masked": 0, "groups": ["site"],
            "classes": {"dog": 8, "tiger cat": 4},
        },
        "options": {"method": "grad-cam", "seed": 0},
        "summary": metrics(
            top1=stat(0.75), confidence=stat(0.85), inside_box=stat(0.4), box_area=stat(0.2),
            pointing=stat(0.6), pointing_centre=stat(0.5), border=stat(0.15), entropy=stat(0.8),
            empty=stat(0.0, 0.0, 0.2), seconds=stat(0.01, 0.009, 0.02),
        ),
        "class": {
            "dog": metrics(8, top1=stat(0.875, photos=8), inside_box=stat(0.4, photos=8)),
            "tiger cat": metrics(4, top1=stat(0.5, photos=4)),
        },
        "group": {
            "site": {
                "A": metrics(6, top1=stat(0.9, 0.8, 1.0, 6)),
                "B": metrics(6, top1=stat(0.6, 0.4, 0.8, 6)),
            }
        },
        "calibration": {
            "error": 0.03,
            "bins": [
                {"from": 0.0, "to": 0.5, "photos": 3, "confidence": 0.4, "accuracy": 0.33},
                {"from": 0.5, "to": 1.0, "photos": 9, "confidence": 0.9, "accuracy": 0.89},
            ],
        },
        "faithfulness": {
            "deletion": {"map": stat(0.2), "random": stat(0.5), "edges": stat(0.4),
                         "centre": stat(0.35)},
        },
        "clusters": [
            {"id": "dog-1", "class": "dog", "photos": 5, "share": 0.625,
             "members": ["dog/1.jpg", "dog/2.jpg"], "map": _blob(2, 13),
             "region": [0.0, 0.7, 0.3, 1.0],
             "shared": [{"what": "site = B", "inside": 0.95, "outside": 0.1, "p": 1e-9}]},
            {"id": "dog-2", "class": "dog", "photos": 3, "share": 0.375, "members": ["dog/3.jpg"],
             "map": _blob(8, 8), "region": [0.3, 0.3, 0.7, 0.7], "shared": []},
        ],
        "findings": [
            {"id": "F1", "rule": "shared-region", "level": "error", "confirmed": True,
             "sentence": "5 of 8 photos of dog are recognised by one corner, not by the object.",
             "class": "dog", "cluster": "dog-1", "photos": ["dog/1.jpg", "dog/2 #1.jpg"],
             "region": [0.0, 0.7, 0.3, 1.0],
             "interventions": [
                 {"kind": "paint over", "photos": 5, "change": stat(-0.5, -0.6, -0.4, 5),
                  "control": stat(-0.02, -0.05, 0.01, 5), "excess": stat(-0.48, -0.58, -0.38, 5),
                  "confirmed": True},
                 {"kind": "paste", "photos": 4, "change": stat(0.4, 0.2, 0.6, 4),
                  "control": stat(0.0, -0.1, 0.1, 4), "excess": stat(0.4, 0.2, 0.6, 4),
                  "confirmed": True},
             ]},
            {"id": "F2", "rule": "evidence-outside-object", "level": "warning", "confirmed": False,
             "sentence": "Less of the evidence than of the area lies in the box.",
             "class": None, "cluster": None, "photos": ["dog/3.jpg"], "region": None,
             "interventions": []},
            {"id": "F3", "rule": "group-gap", "level": "note", "confirmed": None,
             "sentence": "Accuracy at site B is 0.3 below site A.", "class": None, "cluster": None,
             "photos": [], "region": None, "interventions": []},
        ],
        "suspicious": [
            {"photo": "dog/1.jpg", "reasons": ["the evidence lies on the border"], "rank": 1},
            {"photo": "dog/2.jpg", "reasons": ["wrong, and certain"], "rank": 2},
        ],
        "warnings": ["4 photos of tiger cat are few"],
        "compare": {"flips": 2, "flip_rate": stat(0.01, 0.0, 0.02)},
    }  # fmt: skip
    return {**document, **changes}


def hostile_document() -> dict[str, Any]:
    """The report with a hostile name wherever a stranger may have written one."""

    def spoilt(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            named = key in {"class", "site", "classes", "opsets"}
            return {
                f"{name} {HOSTILE}" if named else name: spoilt(item, name)
                for name, item in value.items()
            }
        if isinstance(value, list):
            return [spoilt(item, key) for item in value]
        kept = {"sha256", "declared", "level", "kind", "rule", "version", "id", "cluster"}
        return f"{value} {HOSTILE}" if isinstance(value, str) and key not in kept else value

    return spoilt(audit_document())


def audit_rows(count: int = 12) -> list[dict[str, Any]]:
    """Rows of photos, the last of them refused; without pictures."""
    rows = []
    for i in range(count):
        label = ("dog", "tiger cat")[i % 3 == 2]
        right = i % 4 != 1
        rows.append(
            {
                "photo": f"{label}/{i}.jpg", "label": label,
                "predicted": label if right else "tiger cat", "index": i % 2,
                "probability": round(0.5 + 0.5 * abs(math.sin(i)), 4),
                "label_probability": 0.5, "correct": right, "in_top5": None, "item": None,
                "method": "grad-cam", "layer": "relu_18",
                "inside_box": round(abs(math.cos(i)), 4) if i % 2 else None,
                "box_area": 0.2 if i % 2 else None, "inside_mask": None, "mask_area": None,
                "centre_y": 0.5, "centre_x": 0.4, "entropy": 0.8, "border": 0.1,
                "pointing": True, "pointing_centre": None, "drop": 0.2, "increase": False,
                "empty": False, "deletion": None, "insertion": None, "seconds": 0.01,
                "refused": None, "cluster": "dog-1" if label == "dog" else None,
                "site": "AB"[i % 2], "thumbnail": None, "heat": None,
            }
        )  # fmt: skip
    rows.append({"photo": "dog/broken.jpg", "label": "dog", "refused": "is truncated", "site": "A"})
    return rows


def _blob(row, column):
    return [
        [round(math.exp(-((y - row) ** 2 + (x - column) ** 2) / 9), 4) for x in range(16)]
        for y in range(16)
    ]
