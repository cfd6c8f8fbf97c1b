"""The audit's page in headless Chromium: its policy, table, gallery, keyboard, and accessibility.

Needs Chromium, its driver and the extra ``formats``, whose axe-playwright-python brings axe-core;
``AXE_CORE`` may name another ``axe.min.js``.
"""

import importlib.util
import json
import os
import time
from pathlib import Path

import pytest
from audit_documents import HOSTILE, audit_document, audit_rows, hostile_document
from browsers import SIZES, browsing, serving
from PIL import Image

from inspector.render import html

pytestmark = pytest.mark.conformance

PHOTOS = 10_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a page of many photos, one of hostile names, and pictures."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "thumbnails").mkdir()
    Image.new("RGB", (64, 64), "seagreen").save(folder / "thumbnails/a.jpg")
    Image.new("RGBA", (64, 64), (255, 0, 0, 128)).save(folder / "thumbnails/a.map.png")
    pictures = {"thumbnail": "thumbnails/a.jpg", "heat": "thumbnails/a.map.png"}
    rows = [row if row.get("refused") else {**row, **pictures} for row in audit_rows(PHOTOS)]
    (folder / "report.html").write_bytes(html.dumps(audit_document(), rows))
    hostile = [
        {**row, "photo": f"{i}{HOSTILE}", "label": HOSTILE} for i, row in enumerate(rows[:60])
    ]
    (folder / "hostile.html").write_bytes(html.dumps(hostile_document(), hostile))
    return folder


@pytest.fixture(scope="module")
def served(folder):
    """Address of the folder on loopback."""
    with serving(folder) as address:
        yield address


@pytest.fixture(params=SIZES)
def browser(request):
    """A fresh browser of one size, which keeps its console and its requests."""
    with browsing(request.param) as driver:
        yield driver


def css(browser, selector):
    return browser.find_elements("css selector", selector)


def one(browser, selector):
    return browser.find_element("css selector", selector)


def click(browser, selector):
    browser.execute_script("arguments[0].click()", one(browser, selector))


def choose(browser, selector, value):
    browser.execute_script(
        "arguments[0].value = arguments[1];"
        "arguments[0].dispatchEvent(new Event('change', {bubbles: true}))",
        one(browser, selector),
        value,
    )


def column(browser, heading):
    heads = [head.text.strip() for head in css(browser, ".rows thead th")]
    index = next(i for i, head in enumerate(heads) if head == heading)
    return [c.text for c in css(browser, f".rows tbody tr > :nth-child({index + 1})")]


def until(ready):
    for _ in range(100):
        if ready():
            return
        time.sleep(0.05)
    raise AssertionError("it did not become so")


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser):
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    found = [
        m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in found if not url.startswith(("data:", "chrome"))]


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_the_page_loads_its_pictures_and_nothing_else(browser, folder, served, scheme):
    base = folder.as_uri() if scheme == "file" else served
    browser.get(f"{base}/report.html")
    choose(browser, "#view", "gallery")
    browser.execute_script("document.querySelector('#listing').scrollIntoView()")
    first = one(browser, ".gallery img")
    until(lambda: browser.execute_script("return arguments[0].naturalWidth", first) == 64)
    assert not complaints(browser)
    assert all(url.startswith(base) for url in requests(browser))


def test_rows_are_sorted_filtered_and_paged(browser, folder):
    browser.get((folder / "report.html").as_uri())
    assert one(browser, "#count").text.startswith("10,001 of 10,001 photos, 1 to 50 shown")
    assert len(css(browser, ".rows tbody tr")) == 50
    click(browser, "button[data-sort='probability']")
    rising = [float(text.strip("> ")) for text in column(browser, "Probability")]
    assert rising == sorted(rising)
    click(browser, "button[data-sort='probability']")
    falling = [float(text.strip("> ")) for text in column(browser, "Probability")]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] > rising[-1]
    sorted_by = one(browser, ".rows th[aria-sort]")
    assert sorted_by.get_attribute("aria-sort") == "descending"
    choose(browser, "select[data-filter='label']", "tiger cat")
    choose(browser, "select[data-filter='group site']", "B")
    assert set(column(browser, "Label")) == {"tiger cat"}
    assert set(column(browser, "Site")) == {"B"}
    click(browser, "button[data-page='last']")
    assert one(browser, "#place").text.split()[1] == one(browser, "#place").text.split()[3]
    one(browser, "#search").send_keys("cat/9995")
    until(lambda: one(browser, "#count").text == "1 of 10,001 photos")
    click(browser, "button[type='reset']")
    until(lambda: one(browser, "#count").text.startswith("10,001"))
    assert column(browser, "Suspicion rank")[:2] == ["1", ""]
    assert not complaints(browser)


def test_sorting_ten_thousand_rows_is_quick(browser, folder):
    browser.get((folder / "report.html").as_uri())
    took = browser.execute_script(
        "const begun = performance.now();"
        "document.querySelector(\"button[data-sort='photo']\").click();"
        "document.querySelector(\"button[data-sort='probability']\").click();"
        "return performance.now() - begun"
    )
    assert took < 1000


def test_a_photo_is_opened_walked_and_closed_by_keyboard(browser, folder):
    browser.get((folder / "report.html").as_uri())
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    button = one(browser, ".rows tbody button")
    browser.execute_script("arguments[0].focus()", button)
    button.send_keys(keys.ENTER)
    dialog = one(browser, "#photo")
    until(dialog.is_displayed)
    name = one(browser, "#photo-name").text
    browser.switch_to.active_element.send_keys(keys.ARROW_RIGHT)
    until(lambda: one(browser, "#photo-name").text != name)
    browser.switch_to.active_element.send_keys(keys.ARROW_LEFT)
    until(lambda: one(browser, "#photo-name").text == name)
    browser.switch_to.active_element.send_keys(keys.ESCAPE)
    until(lambda: not dialog.is_displayed())
    assert browser.switch_to.active_element.text == name
    assert not complaints(browser)


def test_the_slider_sets_the_opacity_of_maps(browser, folder):
    browser.get((folder / "report.html").as_uri())
    choose(browser, "#view", "gallery")
    for selector, value in (("#opacity", 25), ("#photo .opacity", 75)):
        browser.execute_script(
            "arguments[0].value = arguments[1];"
            "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
            one(browser, selector),
            value,
        )
        opacity = one(browser, ".gallery .heat").value_of_css_property("opacity")
        assert float(opacity) == value / 100
        assert one(browser, "#opacity").get_attribute("value") == str(value)


def test_a_finding_and_a_class_show_their_photos(browser, folder):
    browser.get((folder / "report.html").as_uri())
    click(browser, "button[data-finding='F1']")
    until(lambda: one(browser, "#count").text == "1 of 10,001 photos")  # the other does not exist
    assert "dog/1.jpg" in one(browser, ".gallery li").text
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    click(browser, "button[data-class='tiger cat']")
    until(lambda: "3,333 of" in one(browser, "#count").text)


def test_the_cluster_map_leads_to_its_clusters_by_keyboard(browser, folder):
    browser.get((folder / "report.html").as_uri())
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys
    tile = one(browser, ".plane a")
    browser.execute_script("arguments[0].focus()", tile)
    tile.send_keys(keys.ENTER)
    until(lambda: browser.current_url.endswith("#cluster-1"))
    where = "return document.getElementById('cluster-1').getBoundingClientRect().top"
    until(lambda: 0 <= browser.execute_script(where) < browser.execute_script("return innerHeight"))
    assert not complaints(browser)


def test_hostile_names_are_shown_as_text(browser, folder):
    browser.get((folder / "hostile.html").as_uri())
    choose(browser, "#view", "gallery")
    click(browser, ".gallery button")
    choose(browser, "#view", "table")
    assert "<img src=x onerror=alert(1)>" in one(browser, ".rows tbody th").get_attribute(
        "textContent"
    )
    assert not css(browser, "img[src='x']")
    assert not complaints(browser)
    assert one(browser, "#count").text.startswith("60 of 60")


def test_a_group_may_be_called_like_a_filter(browser, folder):
    document = audit_document()
    document["data"]["groups"] = ["outcome", "finding", "group label"]
    named = {"outcome": "A", "finding": "B", "group label": "C"}
    rows = [{**row, **named} for row in audit_rows(10)]
    (folder / "groups.html").write_bytes(html.dumps(document, rows))
    browser.get((folder / "groups.html").as_uri())
    for name, value in named.items():
        choose(browser, f"select[data-filter='group {name}']", value)
        assert one(browser, "#count").text == "11 of 11 photos"
    choose(browser, "select[data-filter='outcome']", "refused")
    assert one(browser, "#count").text == "1 of 11 photos"
    assert not complaints(browser)


@pytest.mark.parametrize("name", ["report", "hostile"])
def test_nothing_is_wider_than_the_window(browser, folder, name):
    browser.get((folder / f"{name}.html").as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    for view in ("table", "gallery"):
        choose(browser, "#view", view)
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= browser.execute_script("return window.innerWidth")


def axe_core():
    """The file axe.min.js."""
    if "AXE_CORE" in os.environ:
        return Path(os.environ["AXE_CORE"])
    # Found, not imported: the package itself would start Playwright.
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None:
        pytest.skip("axe-playwright-python is not installed")
    return Path(found.origin).with_name("axe.min.js")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, folder, scheme):
    axe = axe_core()
    browser.set_script_timeout(200)  # seconds, on a machine that is busy
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get((folder / "report.html").as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    source = axe.read_text(encoding="utf-8")
    for view in ("table", "gallery"):
        choose(browser, "#view", view)
        # The driver's scripts are not under the page's policy.
        browser.execute_script(source)
        found = browser.execute_async_script("axe.run().then(arguments[0])")
        serious = [v for v in found["violations"] if v["impact"] in {"serious", "critical"}]
        assert not [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in serious]
