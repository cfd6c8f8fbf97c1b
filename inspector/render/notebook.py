"""A figure as a notebook shows it: HTML that carries the picture with it."""

import base64
import html as escaping
import io
import os
import sys
from typing import Any
from warnings import warn

from PIL import Image, ImageShow

from inspector.errors import InspectorWarning

__all__ = ["data_uri", "has_display", "html", "png_bytes", "show", "text"]


def png_bytes(image: Image.Image) -> bytes:
    """The image as PNG, for ``_repr_png_``."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(image: Image.Image) -> str:
    """The image as a ``data:`` address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode("ascii")


def html(image: Image.Image, caption: str = "") -> str:
    """An ``<img>`` element, for ``_repr_html_``; the caption is escaped."""
    text = escaping.escape(caption, quote=True)
    return f'<img src="{data_uri(image)}" alt="{text}" title="{text}" style="max-width: 100%">'


def text(sentence: str) -> str:
    """A paragraph, for ``_repr_html_`` of a result without a picture; escaped."""
    return f"<p>{escaping.escape(sentence)}</p>"


def show(result: object, image: Image.Image) -> None:
    """Show a result in the notebook that runs this, else its picture in the viewer of pictures.

    Where nothing can open a picture (a server without a display), that is a warning.
    """
    shell: Any = sys.modules.get("IPython")
    if shell is not None and shell.get_ipython() is not None:
        shell.display.display(result)
    elif not has_display() or not ImageShow.show(image):
        warn("nothing here opens pictures: save() writes them", InspectorWarning, stacklevel=3)


def has_display() -> bool:
    """Whether a program can open a window here; on Linux a session names its display."""
    own = sys.platform in {"darwin", "win32", "cygwin"}
    return own or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
