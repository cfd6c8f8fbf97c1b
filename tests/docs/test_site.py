"""`make site`: built without a warning, complete, and without a request to anybody."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from commands import ROOT

pytestmark = pytest.mark.conformance

for package in ("sphinx", "myst_parser", "pydata_sphinx_theme"):
    pytest.importorskip(package, reason="pip install 'onnx-inspector[docs]'")

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""Attributes by which a page has something loaded."""

NOT_LOADED = {"canonical", "prev", "next", "search", "index"}
"""Relations of a `link` that are not followed by a browser."""


class Page(HTMLParser):
    """Links, anchors and loaded files of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.loaded, self.words = [], {""}, [], 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if tag == "meta" and given.get("http-equiv") == "refresh":
            self.links.append(given["content"].partition("url=")[2])
        relations = set((given.get("rel") or "").split())
        if tag in LOADED and given.get(LOADED[tag]) and not relations & NOT_LOADED:
            self.loaded.append(given[LOADED[tag]])


def sphinx(*words, folder=ROOT):
    """Run Sphinx as `make site` does: quiet, with warnings as errors."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", *map(str, words)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(  # noqa: S603 - our own command
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = sphinx("-c", "docs/site", "-d", folder / "doctrees", ".", folder / "site")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def local(page, link):
    """File and anchor that a link leads to; None where it leaves the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = page.parent / unquote(parts.path) if parts.path else page
    return Path(os.path.normpath(path)), unquote(parts.fragment)


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for path, page in pages.items():
        for link in page.loaded:
            found = local(path, link)
            assert link.startswith("data:") or found, f"{path.name} loads {link}"
            assert not found or found[0].is_file(), f"{path.name} lacks {link}"
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", text), sheet


def test_links_and_anchors_lead_somewhere(pages):
    wrong = []
    for path, page in pages.items():
        for link in page.links:
            found = local(path, link)
            if found is None:
                continue
            target, anchor = found
            if not target.exists():
                wrong.append(f"{path.name}: {link}")
            elif target in pages and anchor not in pages[target].anchors:
                wrong.append(f"{path.name}: {link} (anchor)")
    assert not wrong


def test_every_page_is_reached_from_the_first(site, pages):
    open_, seen = [site / "index.html"], set()
    while open_:
        path = open_.pop()
        if path in seen or path not in pages:
            continue
        seen.add(path)
        open_ += [found[0] for link in pages[path].links if (found := local(path, link))]
    assert {path for path in pages if path.parent.name in {"docs", "studies"}} <= seen
    written = {path.stem for path in (ROOT / "docs").rglob("*.md")}
    assert written <= {path.stem for path in seen}


def test_the_search_index_knows_every_page(site):
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    assert {f"docs/{path.stem}" for path in (ROOT / "docs").glob("*.md")} <= set(index["docnames"])
    assert {"occlus", "deconvnet"} <= set(index["terms"])
    shown = (site / "_static/documentation_options.js").read_text(encoding="utf-8")
    assert "SHOW_SEARCH_SUMMARY: false" in shown, "summaries are fetched, which a file may not do"


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path):
    (tmp_path / "index.md").write_text("# One\n\n[a](#not-here) [b](missing.md)\n")
    settings = 'extensions = ["myst_parser"]\nmyst_heading_anchors = 4\n'
    (tmp_path / "conf.py").write_text(settings + 'source_suffix = {".md": "markdown"}\n')
    done = sphinx(".", "out", folder=tmp_path)
    assert done.returncode == 1
    assert "not-here" in done.stderr
    assert "missing" in done.stderr
