"""What every test may ask for."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of third-party models and photos, which the project does not ship."""
    if not SHARED.is_dir():
        pytest.skip("third-party models and photos (../shared) are not here")
    return SHARED
