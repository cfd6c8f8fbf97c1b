"""What every test may ask for."""

import os
import signal
from pathlib import Path

import pytest

# Tests import ONNX Runtime themselves, before this package does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Verdicts on the twin are kept in the user's cache folder; tests have none to share.
os.environ["INSPECTOR_CACHE"] = "off"

# A shell that starts the tests in the background ignores interrupts, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of third-party models and photos, which the project does not ship."""
    if not SHARED.is_dir():
        pytest.skip("third-party models and photos (../shared) are not here")
    return SHARED
