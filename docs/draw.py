"""Draw the pictures of a real network that README and guides show, each with its one command.

    python docs/draw.py FOLDER [NAME ...]

FOLDER holds ``efficientnet_lite0.onnx``, its ``efficientnet_lite0.int8.onnx``, ``cat.png`` and
``coffee.png``, as ``make pictures`` makes them, the folders that
``sample_models/scikit_photos.py`` writes, and ``FastestDet.onnx``, a third party's detector
(github.com/dog-qiuqiu/FastestDet, example/onnx-runtime, BSD-3-Clause); without it the pictures of
boxes stay as they are.  Pictures are kept as JPEG: as PNG, photos would take five times the room.
Those of studies are made as wide as a page of text, and as fine as ``LARGEST`` allows.
"""

import itertools
import shlex
import subprocess
import sys
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent / "images"

LITE0 = "inspector explain efficientnet_lite0.onnx"
STUDY = "inspector study"
BOXES = (
    "inspector explain FastestDet.onnx cat.png --labels coco.txt --set channels=BGR --set scale=255"
    " --set mean=0,0,0 --set std=1,1,1 --set resize=squash"
)
PICTURES = {
    "coffee": (
        f'{LITE0} coffee.png -t espresso -t "coffee mug" -m grad-cam -m occlusion --sheet -o coffee'
    ),
    "boxes": f"{BOXES} -m hires-cam -m occlusion:window=44,stride=22 --sheet -o boxes",
    "int8": (
        "inspector compare efficientnet_lite0.onnx efficientnet_lite0.int8.onnx cat.png coffee.png"
        " -o int8"
    ),
    "first": f"{LITE0} cat.png -o first",
    "cats": f"{LITE0} cat.png -t top2 -m cam -m occlusion --sheet -o cats",
    "through-a-layer": (
        f"{LITE0} coffee.png -m cam -m grad-cam -m grad-cam++ -m hires-cam -m layer-cam"
        " -m x-grad-cam -m ablation-cam -m recipro-cam -m eigen-cam --sheet --columns 3 -o layer"
    ),
    "at-the-pixels": (
        f"{LITE0} coffee.png -m gradient -m smooth-grad -m guided-backprop -m guided-grad-cam"
        " -m deconvnet -m occlusion --sheet --columns 3 -o pixels"
    ),
    "filters-lite0": f"{STUDY} filters efficientnet_lite0.onnx cat.png coffee.png -o filters-lite0",
    "occlusion-lite0": f"{STUDY} occlusion efficientnet_lite0.onnx coffee.png -o occlusion-lite0",
    "correspondence-lite0": (
        f"{STUDY} correspondence efficientnet_lite0.onnx --parts faces/parts.json --draws 99"
        " -o correspondence-lite0"
    ),
    "invariance-lite0": (
        f"{STUDY} invariance efficientnet_lite0.onnx cat.png coffee.png scenes/camera.png"
        ' --target "tiger cat" --target espresso --target tripod -o invariance-lite0'
    ),
    "faithfulness-lite0": (
        f"{STUDY} faithfulness efficientnet_lite0.onnx cat.png coffee.png scenes/camera.png"
        " -m grad-cam -m gradient --count 3 --steps 5 --subsets 20 -o faithfulness-lite0"
    ),
    "layers-lite0": (
        f"{STUDY} layers efficientnet_lite0.onnx scenes/ --projection guided-backprop"
        " --layers add_140,add_236,add_332,add_479,add_728 -o layers-lite0"
    ),
    "localisation-lite0": (
        f"{STUDY} localisation efficientnet_lite0.onnx scenes/ --boxes scenes/boxes.csv"
        " -o localisation-lite0"
    ),
    "pooling-lite0": (
        f"{STUDY} pooling efficientnet_lite0.onnx objects/ --layer add_728 -o pooling-lite0"
    ),
    "reconstruction-lite0": (
        f"{STUDY} reconstruction efficientnet_lite0.onnx coffee.png cat.png"
        " --layers add_140,add_332,add_479,add_728 --unconditioned none -o reconstruction-lite0"
    ),
    "sanity-lite0": f"{STUDY} sanity efficientnet_lite0.onnx cat.png coffee.png -o sanity-lite0",
    "top-activations-lite0": (
        f"{STUDY} top-activations efficientnet_lite0.onnx scenes/ --layer add_728 --units 0,1,2,3"
        " --count 5 --projection guided-backprop -o top-activations-lite0"
    ),
    "transfer-lite0": f"{STUDY} transfer efficientnet_lite0.onnx textures/ -o transfer-lite0",
    "units-lite0": (
        f"{STUDY} units efficientnet_lite0.onnx objects/ --target espresso --count 4 --photos 5"
        " -o units-lite0"
    ),
}
"""Command of each picture of ``docs/images``."""

LARGEST, WIDTHS = 150_000, (1000, 900, 800, 700)
"""Bytes of the picture of a study, and pixels across, widest first."""

NEEDS = {"boxes": "FastestDet.onnx"}


def coco_names() -> list[str]:
    """Names of COCO's 80 classes in the order of their indices, as torchvision lists them."""
    sys.path.append(str(Path(__file__).parents[1] / "sample_models"))
    from efficientnet_lite0 import class_names

    listed = class_names("_COCO_CATEGORIES") or []
    return [name for name in listed if name not in {"N/A", "__background__"}]


def written(command: str) -> Path:
    """The picture that a command writes, below the folder where it runs."""
    words = shlex.split(command)
    folder = Path(words[words.index("-o") + 1])
    if words[1] == "compare":
        return folder / "comparison.png"
    if words[1] == "study":
        return folder / f"{words[2]}.png"
    photo = Path(words[3]).stem
    return folder / (
        f"{photo}.sheet.png" if "--sheet" in words else f"{photo}.grad-cam.tiger-cat.png"
    )


def draw(name: str, folder: Path) -> None:
    """Run a picture's command in a folder and keep the picture."""
    command = PICTURES[name]
    words = [sys.executable, "-m", "inspector", *shlex.split(command)[1:]]
    subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
    keep(Image.open(folder / written(command)), IMAGES / f"{name}.jpg", small=words[3] == "study")


def keep(picture: Image.Image, path: Path, *, small: bool) -> None:
    """Write a picture as JPEG; a small one as wide as a page, and as fine as its bytes allow."""
    picture = picture.convert("RGB")
    if not small:
        picture.save(path, quality=90, subsampling=0, optimize=True)
        return
    for width, quality in itertools.product(WIDTHS, (90, 85, 80, 75)):
        small_one = picture.copy()
        small_one.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
        small_one.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= LARGEST:
            return


def main() -> int:
    """Draw the pictures that the command line names, or all."""
    folder = Path(sys.argv[1])
    if not (folder / "coco.txt").is_file():
        (folder / "coco.txt").write_text("\n".join(coco_names()) + "\n")
    for name in sys.argv[2:] or PICTURES:
        needed = folder / NEEDS.get(name, "cat.png")
        if needed.is_file():
            draw(name, folder)
        else:
            sys.stderr.write(f"{name} stays as it is: {needed} is not there\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
