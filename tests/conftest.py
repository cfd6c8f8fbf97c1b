"""What every test may ask for."""

import os
from pathlib import Path

import pytest

# Tests import ONNX Runtime themselves, before this package does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Verdicts on the twin are kept in the user's cache folder; tests have none to share.
os.environ["INSPECTOR_CACHE"] = "off"

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of third-party models and photos, which the project does not ship."""
    if not SHARED.is_dir():
        pytest.skip("third-party models and photos (../shared) are not here")
    return SHARED
