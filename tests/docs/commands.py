"""Commands and Python blocks of the documentation, and what stands in for the files they name.

``inspector ...`` lines of fenced blocks in ``README.md`` and ``docs/`` are run in a folder with the
stand-ins of ``FILES``.  What is not run stands in ``NOT_RUN`` with the reason.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PAGES = sorted(
    page
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if not page.read_text().startswith("<!-- generated")
)

FILES = {
    "model.onnx": "resnet20.onnx",
    "float.onnx": "resnet20.onnx",
    "int8.onnx": "zfnet_coarse.onnx",  # another network of the same classes
    "untrained.onnx": "zfnet_snapshots/zfnet_epoch_001.onnx",
    "zfnet.onnx": "zfnet.onnx",
    "efficientnet_lite0.onnx": "resnet20.onnx",  # `make pictures` draws with the network itself
    "efficientnet_lite0.int8.onnx": "zfnet_coarse.onnx",
    "FastestDet.onnx": "resnet20.onnx",
    "coco.txt": "labels.txt",
    "cat.png": "images/cat_1.png",
    "coffee.png": "images/dog_1.png",
    "photo.jpg": "images/horse_1.png",
    "cat.jpg": "images/cat_1.png",
    "dog.jpg": "images/dog_1.png",
    "clock.jpg": "images/automobile_1.png",
    "images": "images",
    "scenes": "images",
    "faces": "images",
    "marked": "images",  # without marks, which make no difference to whether the command runs
    "dogs": "images",  # has a parts.json of its own
    "parts.json": "images/parts.json",
    "boxes.csv": "images/boxes.csv",
}
"""Files of the commands, and the sample of ``sample_models`` that stands in for each."""

WORDS = {
    "tabby": "cat",  # classes of ImageNet, which the sample networks do not know
    "pug": "dog",
    "wall clock": "automobile",
    "espresso": "dog",
    "coffee mug": "horse",
    "occlusion:window=44,stride=22": "occlusion:window=8,stride=4",  # their input has 32 pixels
    "281": "3",
    "17": "7",  # a unit
    "relu_6": "relu_3",
    "tiger cat": "cat",
    "tripod": "horse",
    "add_140,add_236,add_332,add_479,add_728": "0,1,2,3,5",
    "add_140,add_332,add_479,add_728": "1,3,5",
    "add_728": "5",
    "scenes/camera.png": "images/horse_1.png",
    "objects/": "photos",
    "textures/": "photos",
}
"""Words of the commands that the sample networks do not know, and what stands in for each."""

_CONVERTED = "needs another framework; tests/converters convert such a source"
NOT_RUN = {
    "inspector embed model.onnx --page page --web-runtime onnxruntime-web-1.30.0.tgz": "needs a "
    "package of npm; tests/conformance/test_heatmap_page_in_browser.py writes such pages",
    "inspector audit model.onnx s3://BUCKET/photos -o s3://BUCKET/audit": "needs a bucket and s3fs",
    "inspector convert model.keras -o model.onnx": _CONVERTED,
    "inspector convert saved_model/ -o model.onnx --trust": _CONVERTED,
    "inspector convert model.tflite -o model.onnx": _CONVERTED,
    "inspector convert model.pt2 -o model.onnx": _CONVERTED,
    "inspector convert package.module:make -o model.onnx --trust --weights net.safetensors "
    "--input '?,3,224,224'": _CONVERTED,
    "inspector convert scripted.pt -o model.onnx --trust --input '?,3,224,224'": _CONVERTED,
    "inspector convert folder/ -o model.onnx": _CONVERTED,
    "inspector convert package.module:make -o model.onnx --trust --input '?,224,224,3' "
    "--python apart/bin/python": _CONVERTED,
    "inspector convert inference.json -o model.onnx --trust --python apart/bin/python": _CONVERTED,
    "inspector explain model.keras photo.jpg": _CONVERTED,
    "inspector convert net:make -o model.onnx --trust --input '?,32,32,3' "
    "--python apart/bin/python": _CONVERTED,
}
_TASK = "needs a network of this task; tests/unit and tests/conformance explain such"
NOT_RUN |= dict.fromkeys(
    (
        "inspector explain yolov8n.onnx street.jpg",
        "inspector explain yolov8n.onnx street.jpg --target person",
        "inspector explain unet.onnx scan.png --target tumour",
        "inspector explain face.onnx a.jpg --similar-to b.jpg",
        "inspector explain rec.onnx plate.png",
        "inspector explain vit.onnx cat.jpg",
    ),
    _TASK,
)
"""Commands that are not run, and why."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its fence, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> Iterator[Block]:
    """Every fenced block of the hand-written pages."""
    for page in PAGES:
        name, inside, first, language = page.relative_to(ROOT).as_posix(), [], 0, None
        for number, line in enumerate(page.read_text().splitlines(), 1):
            if not line.startswith("```"):
                inside.append(line)
            elif language is None:
                inside, first, language = [], number, line[3:].strip()
            else:
                yield Block(name, first, language, "\n".join(inside))
                language = None


def commands(block: Block) -> list[str]:
    """The ``inspector`` commands of a block, each on one line, without comments."""
    if block.language not in {"", "sh", "shell", "bash", "console"}:
        return []
    lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
    shown = [re.sub(r"\s+#.*", "", line).strip() for line in lines]
    return [line for line in shown if line.startswith("inspector ")]


def all_commands() -> list[tuple[Block, str]]:
    """Every command with the block that it stands in."""
    return [(block, command) for block in blocks() for command in commands(block)]


def arguments(command: str, folder: Path) -> list[str]:
    """What the shell hands to ``inspector``: quotes taken off, patterns expanded in a folder."""
    found: list[str] = []
    for word in shlex.split(command)[1:]:
        matches = sorted(folder.glob(word)) if re.search(r"[*\[]", word) and "/" in word else []
        found += [m.relative_to(folder).as_posix() for m in matches] or [WORDS.get(word, word)]
    return found
