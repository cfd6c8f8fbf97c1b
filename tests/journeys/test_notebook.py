"""A notebook of the library, executed, and opened in a browser as its reader sees it.

Runs where ``nbclient``, ``nbconvert``, ``ipykernel`` and a browser are installed.
"""

import json
import os
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(900)]

nbclient = pytest.importorskip("nbclient")
nbconvert = pytest.importorskip("nbconvert")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
from browsers import browsing  # noqa: E402 - skips where there is no browser

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"

CELLS = {
    "a report": """
        import io
        import numpy as np
        from pathlib import Path
        from PIL import Image
        import inspector

        samples = Path("SAMPLES")
        horse = samples / "images/horse_1.png"
        model = inspector.load(samples / "resnet20.onnx")
        report = model.explain(horse, ["grad-cam", "cam"], target="top2")
        report
    """,
    "one photo": "report[0]",
    "kinds of photos": """
        picture = Image.open(horse)
        pixels = np.asarray(picture.convert("RGB"))
        import torch
        kinds = [
            horse, str(horse), horse.read_bytes(), io.BytesIO(horse.read_bytes()), picture, pixels,
            torch.from_numpy(pixels.copy()), pixels.transpose(2, 0, 1).copy(),
        ]
        maps = [model.explain(kind, "cam").heatmap for kind in kinds]
        assert all(np.allclose(one, maps[0], atol=1e-5) for one in maps)
        model.explain(kinds[-4:], "cam")
    """,
    "kinds of targets": """
        named = [3, "cat", "sum(cat; -dog)", lambda s: s[:, 3] - s[:, 5], ("cat", "dog")]
        for target in named:
            print(model.explain(horse, "cam" if target != named[3] else "grad-cam", target=target))
        model.explain([horse, horse], "cam", target=["cat", "horse"])
    """,
    "an error that says what to do": """
        try:
            model.explain(horse, target="hrose")
        except inspector.InspectorError as error:
            print(error)
    """,
    "classes": "model.predict(horse)",
}
"""Cells by what they show; all but those that print or list show pictures."""

PICTURES = ("a report", "one photo", "kinds of photos", "kinds of targets")


def source(text):
    """A cell without the indentation that it has here."""
    lines = text.replace("SAMPLES", SAMPLES.as_posix()).strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[indent:] for line in lines).strip()


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook behind its last cell, run by the interpreter that runs the tests."""
    folder = tmp_path_factory.mktemp("notebook")
    kernel = folder / "kernels" / "here"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "here", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source(text)) for text in CELLS.values()]
    )
    earlier = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(folder)
    try:
        nbclient.NotebookClient(book, timeout=600, kernel_name="here").execute(cwd=str(folder))
    finally:
        os.environ.pop("JUPYTER_PATH")
        if earlier is not None:
            os.environ["JUPYTER_PATH"] = earlier
    page = folder / "notebook.html"
    page.write_text(nbconvert.HTMLExporter(embed_images=True).from_notebook_node(book)[0])
    return dict(zip(CELLS, book.cells, strict=True)), page


def kinds_of(cell):
    """Kinds of what a cell shows."""
    return {kind for output in cell.outputs for kind in output.get("data", {})}


@pytest.mark.parametrize("name", PICTURES)
def test_a_result_shows_itself(executed, name):
    cell = executed[0][name]
    assert "text/html" in kinds_of(cell)
    assert not [o for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"]


def test_an_error_names_the_nearest_class(executed):
    printed = "".join(o.text for o in executed[0]["an error that says what to do"].outputs)
    assert "hrose" in printed
    assert "horse" in printed


def test_every_picture_is_seen_in_a_browser(executed, tmp_path):
    with browsing("desktop") as browser:
        browser.get(executed[1].as_uri())
        sizes = browser.execute_script(
            "return [...document.querySelectorAll('.jp-OutputArea img')]"
            ".map(i => [i.naturalWidth, i.getBoundingClientRect().width, i.alt])"
        )
        assert len(sizes) == 1 + 1 + 4 + 2
        page = browser.execute_script("return document.documentElement.clientWidth")
        for natural, shown, described in sizes:
            assert natural > 100
            assert 100 < shown <= page
            assert described
        screenshot = Path(os.environ.get("INSPECTOR_SCREENSHOTS", tmp_path)) / "notebook.png"
        height = browser.execute_script("return document.documentElement.scrollHeight")
        browser.set_window_size(1280, min(height, 12_000))
        assert browser.save_screenshot(str(screenshot))
