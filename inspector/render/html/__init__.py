"""An audit as one HTML page, which needs no network: verdict, proof, photos, numbers.

The page is a template of Jinja2 with its script and style inside; its content policy allows these
by their hashes, pictures from the folder that it lies in, and nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from inspector.errors import require
from inspector.render.html.inline import policy_source
from inspector.render.html.rows import table
from inspector.render.html.view import view

__all__ = ["NAME", "check", "dumps"]

NAME = "report.html"
"""Name of the file."""

# Of a page that is opened as a file, 'self' is nothing to Firefox: its pictures need "file:".
_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src 'self' file: data:; "
    "base-uri 'none'; form-action 'none'"
)


def check() -> None:
    """Refuse to begin where the page could not be written.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    require("jinja2", "the HTML report of an audit", "audit")


def dumps(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]] = ()) -> bytes:
    """The page.

    Args:
        document: The report as plain data.
        rows: Rows of the photos; `thumbnail` and `heat` are paths of pictures below the page's
            folder.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    check()
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("inspector.render.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    loader = environment.loader
    assert loader is not None  # noqa: S101 - given above
    script, style = (loader.get_source(environment, name)[0] for name in ("page.js", "page.css"))
    page = environment.get_template("page.html").render(
        view(document, rows),
        policy=_POLICY.format(script=policy_source(script), style=policy_source(style)),
        # Files of this package, and JSON in which "<" is escaped.
        script=Markup(script),  # noqa: S704
        style=Markup(style),  # noqa: S704
        rows=Markup(table(document, rows)),  # noqa: S704
    )
    return (page + "\n").encode()
