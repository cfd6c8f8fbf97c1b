"""The page of ``inspector embed --page`` in headless Chromium: photos are dropped on it.

Needs Chromium, its driver, selenium, and the package of onnxruntime-web as ``npm pack`` stores it
(``ONNXRUNTIME_WEB`` names it; else npm is asked).
"""

import base64
import io
import json
import os
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from browsers import SIZES, browsing, serving
from PIL import Image

import inspector
from inspector.embed.page import write_page
from inspector.embed.page.runtime import COMMAND
from inspector.photos.preprocess import INTERPOLATIONS

pytestmark = pytest.mark.conformance

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
CLOSE = 1e-3

# What a drop gives a page: an event that carries the file.
DROP = """
const [name, type, base64] = arguments, done = arguments[arguments.length - 1];
const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], name, { type }));
const before = inspector.result();
document.getElementById("alarm").hidden = true;
const drop = document.getElementById("drop");
for (const kind of ["dragover", "drop"]) {
  const details = { dataTransfer: transfer, bubbles: true, cancelable: true };
  drop.dispatchEvent(new DragEvent(kind, details));
}
const wait = () => {
  const found = inspector.result();
  const alarm = document.getElementById("alarm");
  if (found !== before) done({ heatmap: [...found.heatmap], scores: [...found.scores],
    pixels: [...found.photo.pixels], size: found.photo.size, side: found.side });
  else if (!alarm.hidden) done({ alarm: alarm.textContent });
  else setTimeout(wait, 50);
};
wait();
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    named = os.environ.get("ONNXRUNTIME_WEB")
    if named:
        return Path(named)
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is not installed, which fetches the runtime: {COMMAND}")
    folder = tmp_path_factory.mktemp("npm")
    command = [npm, *COMMAND.split()[1:]]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    packages = list(folder.glob("*.tgz"))
    if not packages:
        pytest.skip(f"npm gives no onnxruntime-web: {found.stderr.strip()[-200:]}")
    return packages[0]


@pytest.fixture(scope="module")
def model():
    return inspector.load(SAMPLES / "resnet20.onnx", device="cpu")


@pytest.fixture(scope="module")
def folder(model, package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_page(model, folder, runtime=package)
    return folder


@pytest.fixture(scope="module")
def served(folder):
    """Address of the page on loopback."""
    with serving(folder) as address:
        yield f"{address}/index.html"


@pytest.fixture(params=SIZES)
def browser(request):
    with browsing(request.param) as driver:
        driver.set_script_timeout(120)
        yield driver


def opened(browser, address):
    browser.get(address)
    assert browser.execute_async_script("inspector.ready.then(arguments[arguments.length - 1])")
    assert not text(browser, "alarm")
    assert text(browser, "state") == "Ready."
    assert text(browser, "title") == "resnet20.onnx: where it looks"


def text(browser, name):
    return browser.find_element("id", name).text


def drop(browser, name, data, kind="image/png"):
    return browser.execute_async_script(DROP, name, kind, base64.b64encode(data).decode())


def photo(mode="RGB", size=(90, 60), **saved):
    """A photo of smooth noise, as a file."""
    rng = np.random.default_rng(3)
    low = rng.integers(0, 256, (8, 12, len(mode)), np.uint8)
    picture = Image.fromarray(low).resize(size, Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, **{"format": "PNG", **saved})
    return stream.getvalue()


def exif(orientation):
    found = Image.Exif()
    found[274] = orientation
    return found


PHOTOS = {
    "horse.png": (SAMPLES / "images/horse_1.png").read_bytes(),
    "wide.png": photo(size=(301, 40)),
    "high.png": photo(size=(33, 250)),
    "large.png": photo(size=(640, 480)),
    "turned.jpg": photo(format="JPEG", quality=95, exif=exif(6)),
    "clear.png": photo("RGBA"),
}


@pytest.mark.parametrize("place", ["file", "server"])
def test_dropped_photos_give_pythons_classes_and_heatmaps(browser, model, folder, served, place):
    address = served if place == "server" else (folder / "index.html").as_uri()
    opened(browser, address)
    for name, data in PHOTOS.items():
        found = drop(browser, name, data, "image/jpeg" if name.endswith("jpg") else "image/png")
        report = model.explain(io.BytesIO(data), "grad-cam")
        own = report[0].photo.pixels
        pixels = np.reshape(found["pixels"], own.shape).astype(int)
        # A canvas keeps transparent pixels multiplied by their alpha, in eight bits.
        assert np.abs(pixels - own).max() <= (1 if name == "clear.png" else 0), name
        expected = report.explanation.heatmap.attribution.values
        heatmap = np.reshape(found["heatmap"], found["side"])
        if name != "clear.png":
            laid = inspector.heatmap.upsample(expected, heatmap.shape)
            assert np.abs(heatmap - laid).max() <= CLOSE * np.abs(laid).max(), name
        best = report[0].predictions[0]
        assert int(np.argmax(found["scores"])) == best["index"], name
        row = browser.find_elements("css selector", "#classes tr")[0].text
        assert str(best["label"]) in row
        assert f"{best['probability'] * 100:.1f} %" in row
    requests = [
        message["params"]["request"]["url"]
        for message in (json.loads(e["message"])["message"] for e in browser.get_log("performance"))
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert {url for url in requests if not url.startswith(("blob:", "data:"))} <= {
        address,
        address.replace("index.html", "favicon.ico"),
    }
    assert not [e for e in browser.get_log("browser") if "favicon" not in e["message"]]


def png(samples, depth):
    """Samples (H, W, 3) as a PNG file of 8 or 16 bits, which Pillow writes in 8 alone."""
    rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", *samples.shape[1::-1], depth, 2, 0, 0, 0)
    parts = {b"IHDR": head, b"IDAT": zlib.compress(rows), b"IEND": b""}
    found = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts.items():
        found += struct.pack(">I", len(data)) + kind + data
        found += struct.pack(">I", zlib.crc32(kind + data))
    return found


def odd_photos():
    """Files that readers are known to disagree on, with their type."""
    lossless = {"format": "WEBP", "lossless": True}
    for number in range(1, 9):
        yield f"{number}.jpeg", photo(format="JPEG", quality=95, exif=exif(number))
    yield "turned.png", photo(exif=exif(5))
    yield "upright.webp", photo(exif=exif(1), **lossless)
    yield "turned.webp", photo(exif=exif(6), **lossless)
    yield "turned.avif", photo(format="AVIF", quality=100, exif=exif(6))
    yield "lossy.avif", photo(format="AVIF")
    rgb = Image.open(io.BytesIO(photo()))
    samples = np.asarray(rgb).astype(int)
    yield "fine.png", png(samples * 256 + samples[..., ::-1], 16)
    yield "plain.png", png(samples, 8)
    indexed, other = rgb.quantize(32), rgb.rotate(180).quantize(32)

    def saved(image, **options):
        stream = io.BytesIO()
        image.save(stream, **options)
        return stream.getvalue()

    for mode in ("CMYK", "L"):
        yield f"{mode}.jpeg", saved(rgb.convert(mode), format="JPEG", quality=95)
    yield "hole.png", saved(indexed, format="PNG", transparency=5)
    yield "shades.png", saved(indexed, format="PNG", transparency=bytes(range(0, 256, 8)))
    frames = {"save_all": True, "append_images": [other], "duration": 300}
    yield "moving.gif", saved(indexed, format="GIF", **frames)
    yield "moving.webp", saved(rgb, **lossless, **frames)
    yield "moving.png", saved(rgb, format="PNG", **frames)
    for width, height in ((1, 1), (200, 1), (1, 200)):
        yield f"{width}x{height}.png", photo(size=(width, height))


REFUSED = {"fine.png": "sixteen bits", "turned.webp": "turn a WebP file upright"}


def test_odd_photos_are_read_as_python_reads_them_or_refused(model, folder):
    with browsing(next(iter(SIZES))) as browser:
        browser.set_script_timeout(300)
        opened(browser, (folder / "index.html").as_uri())
        for name, data in odd_photos():
            found = drop(browser, name, data, "image/" + name.partition(".")[2])
            if name in REFUSED:
                assert REFUSED[name] in found["alarm"]
                continue
            report = model.explain(io.BytesIO(data), "grad-cam")
            own = report[0].photo.pixels
            apart = np.reshape(found["pixels"], own.shape).astype(int) - own
            assert np.abs(apart).max() <= (1 if name == "shades.png" else 0), name
            values = report.explanation.heatmap.attribution.values
            heatmap = np.reshape(found["heatmap"], found["side"])
            laid = inspector.heatmap.upsample(values, heatmap.shape)
            assert np.abs(heatmap - laid).max() <= CLOSE * np.abs(laid).max(), name
            assert int(np.argmax(found["scores"])) == report[0].predictions[0]["index"], name


def test_planes_are_resampled_as_pillow_does(browser, folder):
    opened(browser, (folder / "index.html").as_uri())
    rng = np.random.default_rng(5)
    for old, new in [
        ((37, 53), (16, 24)),
        ((9, 14), (40, 31)),
        ((64, 1), (7, 5)),
        ((50, 50), (50, 21)),
    ]:
        plane = rng.integers(0, 256, old, np.uint8)
        plane[: old[0] // 2] = np.where(plane[: old[0] // 2] > 127, 255, 0)  # overshoots are cut
        for name, how in INTERPOLATIONS.items():
            found = browser.execute_script(
                "const [plane, old, size, name] = arguments;"
                "return [...inspector.resized(Uint8Array.from(plane), old, size, name)]",
                plane.ravel().tolist(),
                old,
                new,
                name,
            )
            expected = np.asarray(Image.fromarray(plane).resize(new[::-1], how))
            assert np.array_equal(np.reshape(found, new), expected), (name, old, new)


def test_the_page_by_keyboard_and_its_warnings(browser, folder):
    opened(browser, (folder / "index.html").as_uri())
    assert (
        browser.execute_script(
            "document.getElementById('file').focus(); return document.activeElement.id"
        )
        == "file"
    )
    refused = drop(browser, "notes.png", b"no picture at all")
    assert "notes.png cannot be explained" in refused["alarm"]
    drop(browser, "horse.png", PHOTOS["horse.png"])
    assert not text(browser, "alarm")
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= browser.execute_script("return window.innerWidth")
    before = browser.execute_script("return document.getElementById('picture').toDataURL()")
    browser.execute_script(
        "const s = document.getElementById('strength'); s.value = 0;"
        "s.dispatchEvent(new Event('input'))"
    )
    assert before != browser.execute_script("return document.getElementById('picture').toDataURL()")
    shots = os.environ.get("SCREENSHOTS")
    if shots:
        browser.execute_script(
            "const s = document.getElementById('strength'); s.value = 60;"
            "s.dispatchEvent(new Event('input'))"
        )
        width = browser.execute_script("return window.innerWidth")
        browser.save_screenshot(str(Path(shots) / f"page_{width}.png"))


def test_a_browser_that_computes_otherwise_is_told(browser, folder, tmp_path):
    page = (folder / "index.html").read_text()
    start = page.index('"input":', page.index('"test":'))
    end = page.index(",", start)
    (tmp_path / "index.html").write_text(page[:start] + '"input":1' + page[end:])
    browser.get((tmp_path / "index.html").as_uri())
    browser.execute_async_script("inspector.ready.then(arguments[arguments.length - 1])")
    assert "Do not trust this page" in text(browser, "alarm")
