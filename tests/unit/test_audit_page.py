"""The HTML report of an audit: its policy, its parts, its rows, and hostile names in it."""

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from audit_documents import audit_document, audit_rows, hostile_document

from inspector.errors import MissingExtra
from inspector.render import html
from inspector.render.html.cluster_map import HEIGHT, WIDTH, cluster_map
from inspector.render.html.figures import curve, map_picture, span


class Page(HTMLParser):
    """Elements of a page, and the text of those whose text is data."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.texts, self.inside = [], {}, None
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = (tag, dict(attrs).get("type")) if tag in {"script", "style"} else None

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.texts[self.inside] = self.texts.get(self.inside, "") + data

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def rows(self):
        return json.loads(self.texts["script", "application/json"])


def page(document=None, rows=None):
    rows = audit_rows() if rows is None else rows
    return Page(html.dumps(audit_document() if document is None else document, rows))


def test_the_policy_allows_this_script_and_style_alone():
    found = page()
    policy = next(
        meta["content"]
        for meta in found.named("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == "'none'"
    assert parts["img-src"] == "'self' file: data:"
    assert "unsafe" not in policy
    assert "http" not in policy
    for name, key in (("script-src", ("script", None)), ("style-src", ("style", None))):
        digest = hashlib.sha256(found.texts[key].encode()).digest()
        assert parts[name] == f"'sha256-{base64.b64encode(digest).decode()}'"


def test_nothing_is_loaded_from_elsewhere():
    for document, rows in ((audit_document(), audit_rows()), (hostile_document(), [])):
        found = page(document, rows)
        for tag, attributes in found.elements:
            for name, value in attributes.items():
                assert not name.startswith("on"), (tag, name)
                assert name != "style"  # the policy does not allow it
                if name in {"src", "href", "action", "xlink:href"}:
                    assert re.match(r"data:|#|thumbnails/", value), (tag, value)
        assert not re.search(r"https?:", found.texts["style", None])
        assert {"link", "iframe", "object", "base"} & {t for t, _ in found.elements} == {"link"}


def test_hostile_names_make_no_element():
    rows = [
        {**row, "photo": "</script><img src=x>", "label": "<!--<script>"} for row in audit_rows()
    ]
    plain, hostile = page(), page(hostile_document(), rows)
    for tag in ("script", "style", "img", "b", "h2"):
        assert len(plain.named(tag)) == len(hostile.named(tag)), tag
    assert hostile.rows["rows"][0][0] == "</script><img src=x>"
    raw = html.dumps(hostile_document(), rows).decode()
    assert "\u202e" not in raw
    assert "\x00" not in raw
    assert raw.count("<img") == len(plain.named("img"))


def test_the_rows_hold_what_the_photos_have():
    found = page().rows
    names = [column["name"] for column in found["columns"]]
    assert names[0] == "photo"
    assert "in_top5" not in names  # no photo has one
    assert "site" in names
    rows = [dict(zip(names, row, strict=True)) for row in found["rows"]]
    assert len(rows) == 13
    assert rows[-1]["refused"] == "is truncated"
    assert rows[1]["photo"] == "dog/1.jpg"
    assert (rows[1]["rank"], rows[1]["reasons"]) == (1, "the evidence lies on the border")
    shown = [names[index] for index in found["shown"]]
    assert shown[:3] == ["photo", "rank", "label"]
    assert found["findings"]["F1"] == ["dog/1.jpg", "dog/2 #1.jpg"]
    kinds = {column["name"]: column for column in found["columns"]}
    assert kinds["probability"]["numeric"]
    assert not kinds["correct"]["numeric"]
    assert kinds["site"]["group"]


def test_what_moved_since_a_lock_is_a_table():
    moved = {"kind": "outputs", "name": "<logits>", "photo": "a.png", "difference": 0.25}
    lock = {"sentence": "Moved: 1 output.", "entries": [moved | {"band": 1e-6}]}
    found = html.dumps(audit_document(lock=lock), audit_rows()).decode()
    assert "Moved: 1 output." in found
    assert "<td>&lt;logits&gt;</td><td>a.png</td><td>0.25</td>" in found
    assert 'id="lock"' not in html.dumps(audit_document(), audit_rows()).decode()


def test_ten_thousand_photos_add_rows_and_no_elements():
    few, many = page(rows=audit_rows(10)), page(rows=audit_rows(10_000))
    assert len(few.elements) == len(many.elements)
    assert len(many.rows["rows"]) == 10_001


def test_pictures_of_findings_lie_below_the_page():
    rows = audit_rows()
    rows[1] |= {"thumbnail": "thumbnails/ab.jpg", "heat": "thumbnails/ab.map.png"}
    sources = [image["src"] for image in page(rows=rows).named("img")]
    assert sources == ["thumbnails/ab.jpg", "thumbnails/ab.map.png"]


@pytest.mark.parametrize(
    ("passed", "word"), [(True, "Passed"), (False, "Not passed"), (None, "No verdict")]
)
def test_the_verdict_comes_first(passed, word):
    document = audit_document()
    document["verdict"] = {"passed": passed, "sentence": "It is so.", "reasons": []}
    text = html.dumps(document, []).decode()
    assert re.search(r"<h2[^>]*>(.*?)</h2>", text)[1] == word


@pytest.mark.parametrize(
    "document",
    [
        {},
        audit_document(
            calibration=None, faithfulness=None, compare=None, clusters=[], findings=[],
            suspicious=[], thresholds=[], group={}, data={},
        ),
        audit_document(summary={}, model={"model": {"name": "m.onnx"}, "versions": {"onnx": "1"}}),
    ],
    ids=["empty", "without measures", "whole context"],
)  # fmt: skip
def test_a_report_of_which_parts_are_missing_is_drawn(document):
    assert html.dumps(document, []).startswith(b"<!doctype html>")


def test_jinja_is_asked_for_before_work_starts(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtra, match=r"onnx-inspector\[audit\]"):
        html.check()


def test_coordinates_follow_from_the_numbers():
    assert span({"value": 0.5, "low": 0.25, "high": 2.0}, 0, 1) == {
        "low": 25.0,
        "value": 50.0,
        "high": 100.0,
        "width": 75.0,
    }
    assert span({"value": None}, 0, 1) is None
    points = curve(
        [
            {"photos": 4, "confidence": 0.5, "accuracy": 0.25},
            {"photos": 0, "confidence": None, "accuracy": None},
            {"photos": 16, "confidence": 1.0, "accuracy": 1.0},
        ]
    )
    assert [(p["x"], p["y"]) for p in points] == [(150.0, 225.0), (300.0, 0.0)]
    assert points[0]["r"] < points[1]["r"]
    assert map_picture([[0, 1], [float("nan"), 0]]) is None
    assert map_picture("no map") is None
    assert map_picture([[0, 0.5], [1, 0]]).startswith("data:image/png;base64,")


def clusters(count, seed=0):
    """Clusters whose mean maps light up at places of their own."""
    rng = np.random.default_rng(seed)
    return [
        {"id": f"dog-{n}", "class": "dog", "photos": 3 + n, "map": rng.random((16, 16)).tolist()}
        for n in range(count)
    ]


def test_alike_clusters_lie_closer_than_others():
    maps = np.zeros((4, 16, 16))
    maps[0, :4, :4] = maps[1, :4, :5] = maps[2, 12:, 12:] = maps[3, 11:, 12:] = 1
    found = {
        tile["place"]: tile
        for tile in cluster_map([{"photos": 5, "map": one.tolist()} for one in maps])
    }
    far = [
        np.hypot(found[0]["x"] - found[other]["x"], found[0]["y"] - found[other]["y"])
        for other in (1, 2, 3)
    ]
    assert far[0] < min(far[1:])
    assert [found[place]["nearest"] for place in range(4)] == [1, 0, 3, 2]
    assert found[0]["likeness"] == pytest.approx((4 / 5) ** 0.5, abs=1e-3)


@pytest.mark.parametrize("count", [1, 2, 7, 60, 90])
def test_tiles_lie_on_the_map_and_do_not_cover_one_another(count):
    tiles = cluster_map(clusters(count))
    assert len(tiles) == min(count, 48)
    for at, tile in enumerate(tiles):
        assert tile["x"] >= 0
        assert tile["y"] >= 0
        assert tile["x"] + tile["side"] <= WIDTH
        assert tile["y"] + tile["side"] <= HEIGHT
        for other in tiles[:at]:
            across = min(tile["x"] + tile["side"], other["x"] + other["side"])
            down = min(tile["y"] + tile["side"], other["y"] + other["side"])
            covered = across - max(tile["x"], other["x"]), down - max(tile["y"], other["y"])
            assert min(covered) < 1


@pytest.mark.parametrize(
    "broken",
    [
        *([], [{"map": None}], [{"map": [[float("nan")]]}], [{"map": [[0, 0]]}], [{"map": "x"}]),
        [{"map": [[1]]}, {"map": [[1, 2]]}],
    ],
)
def test_clusters_without_maps_have_no_place(broken):
    assert cluster_map(broken) == []


def test_the_cluster_map_works_without_a_script_and_has_a_table():
    document = audit_document(clusters=clusters(3))
    found = page(document)
    links = [a["href"] for a in found.named("a") if "aria-label" in a]
    assert sorted(links) == ["#cluster-1", "#cluster-2", "#cluster-3"]
    identities = {attributes.get("id") for _, attributes in found.elements}
    assert {link[1:] for link in links} <= identities
    assert "Numbers of the map" in {a.get("aria-label") for a in found.named("div")}


@pytest.mark.parametrize("labelled", [True, False])
def test_a_class_has_its_findings(labelled):
    document = audit_document() if labelled else audit_document(**{"class": {}})
    name = document["findings"][0]["class"]
    text = html.dumps(document, audit_rows()).decode()
    section = re.search(rf"<details[^>]*><summary>{name}: (.*?)</details>", text, re.DOTALL)
    assert section is not None
    assert 'href="#finding-1"' in section[1]
    assert ("Show its photos" in section[1]) == labelled
