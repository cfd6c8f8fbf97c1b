"""Pictures, numbers and reports that are compared with committed ones.

``INSPECTOR_UPDATE_GOLDEN=1 pytest tests/golden`` makes them anew; look at them before committing.
"""

import json
import os
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.version import Version
from PIL import Image

FOLDER = Path(__file__).parent
UPDATE = os.environ.get("INSPECTOR_UPDATE_GOLDEN", "") not in {"", "0"}

# Rounding differs between processors and NumPy builds, and FreeType's edges between versions.
FAR, FAR_SHARE, MEAN = 24, 0.01, 0.6
CHARTS = FAR_SHARE, MEAN
if Version(metadata.version("matplotlib")) < Version("3.11"):
    CHARTS = 0.03, 3.0  # their text has other edges, and stands a pixel aside

TOLERANCE = 2e-3
"""Largest difference of a number from the committed one, relative to the array's peak: between
processors a gate at zero flips now and then (METHODS: parity of gradients)."""


@pytest.fixture
def golden_arrays():
    """Compare arrays by name with the committed archive of that name."""

    def compare(arrays, name):
        path = FOLDER / f"{name}.npz"
        if UPDATE:
            path.parent.mkdir(exist_ok=True)
            np.savez_compressed(path, **arrays)
            pytest.skip(f"{path.name} made anew")
        assert path.is_file(), f"{path.name} is missing; make it with INSPECTOR_UPDATE_GOLDEN=1"
        with np.load(path) as stored:
            expected = dict(stored)
        assert sorted(arrays) == sorted(expected)
        for key, wanted in expected.items():
            assert arrays[key].shape == wanted.shape, key
            peak = np.abs(wanted).max()
            np.testing.assert_allclose(
                arrays[key], wanted, rtol=0, atol=TOLERANCE * peak, err_msg=key
            )

    return compare


@pytest.fixture
def golden_document():
    """Compare a JSON document with the committed one: its words exactly, its numbers closely."""

    def compare(document, name):
        path = FOLDER / f"{name}.json"
        found = json.loads(json.dumps(document))
        if UPDATE:
            path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            pytest.skip(f"{path.name} made anew")
        wanted = json.loads(path.read_text(encoding="utf-8"))
        assert dict(_leaves(found, close=False)) == dict(_leaves(wanted, close=False))
        numbers = dict(_leaves(wanted, close=True))
        assert dict(_leaves(found, close=True)) == pytest.approx(numbers, rel=1e-3, abs=1e-6)

    return compare


def _leaves(document, *, close, path=""):
    """Places and values of a document: floats where ``close``, else everything but them."""
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document)
        if not close:
            yield path, len(document)
        for key, value in items:
            yield from _leaves(value, close=close, path=f"{path}/{key}")
    elif isinstance(document, float) == close:
        yield path, document


@pytest.fixture
def golden(tmp_path):
    """Compare an image with the committed one of that name."""

    def compare(image, name):
        path = FOLDER / f"{name}.png"
        if UPDATE:
            path.parent.mkdir(exist_ok=True)
            image.save(path, optimize=True)
            pytest.skip(f"{path.name} drawn anew")
        assert path.is_file(), f"{path.name} is missing; draw it with INSPECTOR_UPDATE_GOLDEN=1"
        with Image.open(path) as opened:
            expected = np.asarray(opened.convert("RGB"), int)
        found = np.asarray(image.convert("RGB"), int)
        drawn = tmp_path / path.name
        image.save(drawn)
        assert found.shape == expected.shape, f"see {drawn}"
        difference = np.abs(found - expected).max(axis=2)
        far = (difference > FAR).mean()
        share, mean = CHARTS if name.startswith("studies/") else (FAR_SHARE, MEAN)
        assert far <= share, f"{far:.2%} of the pixels differ by more than {FAR}: see {drawn}"
        assert difference.mean() <= mean, f"mean difference {difference.mean():.2f}: see {drawn}"

    compare.updates = UPDATE
    return compare
