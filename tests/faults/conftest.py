"""Makes the modules beside the tests importable, and the libraries that children inherit."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def imported():
    """What a command imports, once: a forked child then starts at once."""
    import onnxruntime  # noqa: F401
    import torch

    import inspector.cli.convert
    import inspector.cli.explain
    import inspector.cli.study
    import inspector.cli.verify
    import inspector.explain
    import inspector.verify.checks  # noqa: F401

    torch.set_num_threads(1)
