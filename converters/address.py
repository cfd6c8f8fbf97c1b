"""Addresses in the place of paths: told apart from files, and written as they were typed."""

import os
import re

__all__ = ["NOT_FETCHED", "as_given", "is_address"]

NOT_FETCHED = "is an address, and nothing is fetched: download it, and give the file"

_SCHEME = re.compile(r"(?:https?|ftp|file|s3|gs|hf|data):", re.IGNORECASE)
# What `pathlib` makes of the slashes behind a scheme.
_COLLAPSED = re.compile(r"((?:https?|ftp|file|s3|gs|hf):)/(?!/)", re.IGNORECASE)


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address, and no folder is named like its scheme.

    Example:
        >>> from converters.address import is_address
        >>> is_address("s3://bucket/net.onnx"), is_address("net.onnx")
        (True, False)
    """
    text = os.fspath(path)
    return bool(_SCHEME.match(text)) and not os.path.lexists(text.split("/")[0])


def as_given(where: str) -> str:
    """A place in a message, with the slashes of an address that ``pathlib`` took away.

    Example:
        >>> from converters.address import as_given
        >>> as_given("https:/example.org/net.onnx"), as_given("file:/tmp/net.onnx")
        ('https://example.org/net.onnx', 'file:///tmp/net.onnx')
    """
    found = _COLLAPSED.match(where)
    if found is None:
        return where
    slashes = "///" if found[1].lower() == "file:" else "//"
    return found[1] + slashes + where[found.end() :]
