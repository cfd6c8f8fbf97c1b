"""A web page that holds a model with its heatmap: photo in, classes and heatmap out, no server.

One file. ONNX Runtime's build for browsers and the model stand in it, compressed; its content
policy allows this script and nothing else, so that neither the photo nor anything about it can
leave the machine. Photos are scaled as Pillow scales them (``page.js``), and the page tries itself
on a picture whose values this module has computed.
"""

import base64
import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

from converters import onnx_file
from inspector.embed.page.runtime import WebRuntime, read_runtime
from inspector.embed.written import Written, written
from inspector.engines.runtime import Runtime
from inspector.errors import MethodRefused
from inspector.methods import methods
from inspector.opened import Opened
from inspector.photos.photo import Photo
from inspector.printable import clean_text
from inspector.render.drawing.colormap import diverging, sequential
from inspector.render.html.inline import policy_source, script_json
from inspector.surgery.embedded import HEATMAP
from inspector.versions import own_version
from inspector.whole_file import check_folder, require_new, write_whole

__all__ = ["MAX_MODEL_BYTES", "Page", "write_page"]

MAX_MODEL_BYTES = 256 << 20
"""Browsers hold the page as text several times over while they read it."""

PAGE = "index.html"

_POLICY = (
    "default-src 'none'; script-src {script} 'wasm-unsafe-eval'; style-src {style}; "
    "img-src blob: data:; base-uri 'none'; form-action 'none'"
)
_MARK = re.compile("<!--([A-Z]+)-->")
_TEST_SIZE = (61, 97)
"""Height and width of the picture on which a page tries itself: scaled up or down in any case."""


@dataclass(frozen=True)
class Page:
    """What was written.

    Attributes:
        path: The page.
        size: Its bytes.
        facts: What stands in the metadata of the model inside.
        runtime: Name and version of the runtime inside.
    """

    path: Path
    size: int
    facts: Mapping[str, Any]
    runtime: str


def write_page(
    opened: Opened,
    folder: str | Path,
    method: str = "grad-cam",
    *,
    runtime: str | Path,
    target: str | int = "top1",
    layer: str | int | None = None,
) -> Page:
    """Write ``index.html``: drop a photo on it, see its classes and the heatmap.

    Args:
        opened: The opened model; a classifier, detector or segmenter of pictures.
        folder: Where to; ``index.html`` must not be there.
        method: One of ``inspector.embed.METHODS``.
        runtime: The package of onnxruntime-web as ``npm pack onnxruntime-web`` stores it.
        target: As ``inspector.embed.embed`` takes it.
        layer: The same.

    Returns:
        What was written.

    Raises:
        MethodRefused: The model's input is of another kind than pages feed, or the method cannot
            be written into the model.
        UsageError: The page exists, or the package is not one.

    Example:
        >>> import inspector
        >>> from inspector.embed.page import write_page
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> write_page(model, "page", runtime="onnxruntime-web.tgz")  # doctest: +SKIP
    """
    path = Path(folder) / PAGE
    check_folder(path.parent)
    require_new(path, "name another folder with --page")
    engine = read_runtime(Path(runtime))
    _require_feedable(opened)
    made = written(opened, method, target=target, layer=layer)
    if len(made.data) > MAX_MODEL_BYTES:
        raise MethodRefused(
            f"the model has {len(made.data) >> 20} MiB, more than the {MAX_MODEL_BYTES >> 20} that "
            "browsers read inside a page",
            where=opened.path.name,
            hint="write the file alone with -o, and load it beside your own page",
        )
    data = _html(opened, made, engine)
    require_new(path, "name another folder with --page")  # another run may have been faster
    write_whole(path, data)
    return Page(path, len(data), made.facts, engine.label)


def _require_feedable(opened: Opened) -> None:
    """Refuse inputs that the page's script does not make.

    Raises:
        MethodRefused: Bands, signals, other number types, or several images in one fixed batch.
    """
    image, name = opened.input, opened.path.name
    if image.space != 2 or image.channels not in (1, 3):
        raise MethodRefused("a page takes photos, of one or three channels", where=name)
    kind = opened.graph.inputs[image.name].elem_type
    if kind not in (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8):
        word = onnx.TensorProto.DataType.Name(kind).lower()
        raise MethodRefused(
            f"the image enters as {word}, and a page feeds float32 or uint8", where=name
        )
    if image.batch not in (None, 1):
        raise MethodRefused(
            f"the file fixes a batch of {image.batch} images, and a page has one", where=name
        )


def trial_picture() -> np.ndarray[Any, Any]:
    """The picture (61, 97, 3) on which a page tries itself; ``page.js`` makes the same."""
    height, width = _TEST_SIZE
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    values = (x * x * 3 + y * y * 5 + x * y * (c + 1) * 7 + c * 61) % 251
    found: np.ndarray[Any, Any] = values.astype(np.uint8)
    return found


def _html(opened: Opened, made: Written, engine: WebRuntime) -> bytes:
    files = resources.files(__package__)
    template, style, app = (
        files.joinpath(name).read_text("utf-8") for name in ("page.html", "page.css", "page.js")
    )
    script = f"{engine.script}\n{app}"
    name = clean_text(opened.path.name)
    parts = {
        "POLICY": _POLICY.format(script=policy_source(script), style=policy_source(style)),
        "TITLE": _text(f"{name}: where it looks"),
        "STYLE": style,
        "FACTS": script_json(_facts(opened, made)),
        "MODEL": _packed(made.data),
        "WASM": _packed(engine.wasm),
        "LICENCE": _text(engine.licence),
        "SCRIPT": script,
    }
    return _MARK.sub(lambda mark: parts[mark[1]], template).encode()


def _facts(opened: Opened, made: Written) -> dict[str, Any]:
    """What the script knows of the model."""
    preprocess = opened.preprocessing.preprocess
    image = opened.input
    facts: dict[str, Any] = {
        "name": clean_text(opened.path.name),
        "program": f"onnx-inspector {own_version()}",
        "method": made.facts["method"],
        "target": _words(str(made.facts["target"])),
        "layer": clean_text(made.facts["layer"] or ""),
        "class_specific": methods()[made.method].class_specific,
        "guessed": opened.preprocessing.guessed,
        "preprocess": preprocess.to_dict(),
        "less_height_first": _less_height_first(),
        "input": {
            "name": image.name,
            "layout": image.layout,
            "type": "uint8" if image.integer else "float32",
        },
        "heatmap": HEATMAP,
        "classes": _classes(opened),
        "colours": {"plain": _colours(sequential()), "signed": _colours(diverging())},
    }
    return facts | {"test": _test(opened, made, facts)}


def _less_height_first() -> bool:
    """Whether this Pillow makes tall pictures lower before it makes them narrower, as 13 does."""
    how = Image.Resampling.BILINEAR
    tall = Image.fromarray(np.ascontiguousarray(trial_picture()[:, :20, 0]))  # 61 rows of 20
    found, columns_first, rows_first = (
        np.asarray(one.resize((19, 30), how))
        for one in (tall, tall.resize((20, 30), how), tall.resize((19, 61), how))
    )
    return np.array_equal(found, columns_first) and not np.array_equal(found, rows_first)


def _classes(opened: Opened) -> dict[str, Any] | None:
    """Which output holds the classes, and what they are called; None for other tasks."""
    scores = opened.scores
    if opened.sure_reading is not None or not scores.classifier:
        return None
    names = [clean_text(name) for name in opened.class_labels.names]
    return {
        "output": scores.output,
        "activation": scores.activation,
        "flipped": scores.flipped,
        "assumed": scores.classifies or any(names),
        "names": names,
    }


def _test(opened: Opened, made: Written, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the page has to find on the picture on which it tries itself."""
    image, _ = opened.preprocessing.preprocess.apply(Photo.of(trial_picture()))
    value = opened.model.as_in_graph(opened.input.name, opened.input.arrange(image[None]))
    value = np.ascontiguousarray(value, np.uint8 if opened.input.integer else np.float32)
    names = [HEATMAP, *([facts["classes"]["output"]] if facts["classes"] else [])]
    runtime = Runtime(onnx_file.from_proto(made.model, weights_apart=True), device="cpu")
    found = runtime.run({opened.input.name: value}, names)
    return {
        "size": list(_TEST_SIZE),
        "input": zlib.adler32(value.tobytes()),
        "heatmap": _numbers(found[HEATMAP]),
        "scores": _numbers(found[names[1]]) if len(names) > 1 else "",
    }


def _numbers(values: Any) -> str:
    """Numbers as base64 of float32, little-endian."""
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def _colours(table: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(table, np.uint8).tobytes()).decode()


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _words(target: str) -> str:
    return "the best answer" if target == "top1" else clean_text(target)


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
