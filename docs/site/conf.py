"""Pages of README and docs as a site that works offline: `make site`.

The pages are the Markdown files that are read in the repository too; what Sphinx needs beside
them, the order of the pages, is added here.  A warning is an error.
"""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

BESIDE = ("README", "SECURITY", "CONTRIBUTING", "ARCHITECTURE", "CHANGELOG")
"""Pages beside ``docs``, to which its pages link."""

ORDER = {
    "docs/index": {
        "Begin here": ("install", "tutorial", "reading", "methods", "inputs", "faq"),
        "Work with it": (
            *("pictures", "tasks", "compare", "audit", "gates", "studies", "verify", "convert"),
            "embed",
        ),
        "Look up": (
            *("cli", "library", "reference", "schemas", "operators", "truth", "costs"),
            "glossary",
        ),
        "The project": tuple(f"/{page}" for page in BESIDE),
    },
    "docs/studies": {
        "": tuple(f"studies/{page.stem}" for page in sorted((ROOT / "docs/studies").glob("*.md")))
    },
}
"""Pages below each page, by caption."""

project = "onnx-inspector"
extensions = ["myst_parser"]
include_patterns = ["docs/*.md", "docs/studies/*.md", *(f"{page}.md" for page in BESIDE)]
exclude_patterns = [
    path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in {"docs", "."}
]
source_suffix = {".md": "markdown"}
root_doc = "docs/index"
language = "en"

myst_heading_anchors = 4  # as in the repository
nitpicky = True

html_theme = "pydata_sphinx_theme"
html_title = project
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_search_summary = False  # a page opened as a file may not fetch the others
html_context = {"default_mode": "auto"}
html_extra_path = ["extra"]
templates_path = ["templates"]
html_sidebars = {"**": ["contents.html"]}  # all pages; the theme would show a section's
html_theme_options = {
    "navbar_center": [],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
}


def with_order(_: Any, page: str, source: list[str]) -> None:
    """Add the pages below a page behind its text."""
    for caption, below in ORDER.get(page, {}).items():
        heading = f":caption: {caption}\n" if caption else ""
        rows = "\n".join(below)
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n{heading}\n{rows}\n```\n"


def setup(app: Any) -> None:
    """Hook of Sphinx."""
    app.connect("source-read", with_order)
