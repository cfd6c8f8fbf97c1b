"""Pictures that are compared with committed ones.

``INSPECTOR_UPDATE_GOLDEN=1 pytest tests/golden`` draws them anew; look at them before committing.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parent
UPDATE = os.environ.get("INSPECTOR_UPDATE_GOLDEN", "") not in {"", "0"}

# Rounding differs between processors and NumPy builds, and FreeType's edges between versions.
FAR, FAR_SHARE, MEAN = 24, 0.01, 0.6


@pytest.fixture
def golden(tmp_path):
    """Compare an image with the committed one of that name."""

    def compare(image, name):
        path = FOLDER / f"{name}.png"
        if UPDATE:
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
        assert far <= FAR_SHARE, f"{far:.2%} of the pixels differ by more than {FAR}: see {drawn}"
        assert difference.mean() <= MEAN, f"mean difference {difference.mean():.2f}: see {drawn}"

    compare.updates = UPDATE
    return compare
