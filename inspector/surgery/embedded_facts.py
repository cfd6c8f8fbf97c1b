"""Metadata of a file with a heatmap: what the heatmap was made with."""

from collections.abc import Mapping
from typing import Any

from converters.plain_values import parse_json

__all__ = ["METADATA_KEY", "facts_of"]

METADATA_KEY = "onnx-inspector.heatmap"
"""Key in ``metadata_props`` of the JSON object that ``inspector embed`` writes."""

_LONGEST = 1 << 16  # characters; what is written are some hundreds


def facts_of(metadata: Mapping[str, str]) -> Mapping[str, Any] | None:
    """What the metadata of a file with a heatmap says of it; None for any other file."""
    text = metadata.get(METADATA_KEY, "")
    if not text or len(text) > _LONGEST:
        return None
    try:
        found = parse_json(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
