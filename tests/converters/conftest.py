"""What tests of conversions may ask for."""

import os

import pytest
from forked_child import fork_children


@pytest.fixture
def forked_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions in children that are forked with PyTorch in them, where the system forks."""
    if hasattr(os, "fork"):
        fork_children(monkeypatch)
