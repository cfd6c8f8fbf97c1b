"""What stands inside a page that needs no network: scripts and styles by hash, data as JSON."""

import base64
import hashlib
import json
from typing import Any

__all__ = ["policy_source", "script_json"]


def policy_source(text: str) -> str:
    """A source of a content security policy: the hash of a script or a style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def script_json(content: Any) -> str:
    """JSON that may stand inside a ``script`` element: neither "</script>" nor "<!--" is in it.

    Args:
        content: Plain data with finite numbers.

    Raises:
        ValueError: A number is not finite, which a browser would not read.
    """
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
