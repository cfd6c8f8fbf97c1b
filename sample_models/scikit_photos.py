"""Write photos that come with scikit-image, for studies of an ImageNet network.

    python sample_models/scikit_photos.py FOLDER

    FOLDER/scenes/NAME.png           eight photos, of at most 512 pixels
    FOLDER/scenes/boxes.csv          where their objects are, for `study localisation`
    FOLDER/faces/NAME.png            two faces; parts.json has their eyes and noses, for
                                     `study correspondence`
    FOLDER/objects/CLASS/NN.png      nine views of each of three, in a folder per class of ImageNet
    FOLDER/textures/NAME/NN.png      64 squares of each of three surfaces, for `study transfer`

All are in the public domain or CC0: astronaut and Hubble's deep field (NASA), camera (Lav
Varshney), cat (Stefan van der Walt), coffee (Rachel Michetti), rocket (SpaceX), retina (Mikael
Häggström), coins (Brooklyn Museum), surfaces (cc0textures.com).
"""

import csv
import json
import sys
from pathlib import Path

from PIL import Image

SCENES = {
    "astronaut": "astronaut",
    "camera": "camera",
    "cat": "chelsea",
    "coffee": "coffee",
    "coins": "coins",
    "galaxies": "hubble_deep_field",
    "retina": "retina",
    "rocket": "rocket",
}
"""The name of each photo here, and in scikit-image."""

LONGEST = 512

BOXES = {
    "cat": ("tiger cat|Egyptian cat|tabby", (30, 0, 375, 299)),
    "coffee": ("espresso|coffee mug|cup", (64, 13, 405, 337)),
    "rocket": ("missile|projectile", (243, 100, 277, 334)),
}
"""Classes and box (left, top, right, bottom) of a photo's object, in pixels of what is written."""

FACES = {
    "cat": (
        (0, 0, 451, 300),
        {"left": (135, 83, 205, 150), "right": (298, 108, 345, 165), "nose": (232, 222, 292, 268)},
    ),
    "astronaut": (
        (130, 0, 330, 200),
        {"left": (58, 90, 84, 108), "right": (102, 93, 130, 111), "nose": (82, 108, 104, 134)},
    ),
}
"""What is cut out of a photo, and in it the boxes of both eyes and of the nose."""

VIEWS = {"tiger cat": "cat", "espresso": "coffee", "missile": "rocket"}
SURFACES = ("brick", "grass", "gravel")
TILE = 64


def scene(name: str) -> Image.Image:
    """A photo of scikit-image, in colours and at most ``LONGEST`` pixels long."""
    import skimage.data

    found = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    found.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return found


def views(photo: Image.Image) -> list[Image.Image]:
    """Nine squares of 90 % of the shorter side, from one end of the photo to the other."""
    side = min(photo.size) * 9 // 10
    room = photo.width - side, photo.height - side
    corners = [(room[0] * x // 2, room[1] * y // 2) for y in range(3) for x in range(3)]
    return [photo.crop((x, y, x + side, y + side)) for x, y in corners]


def tiles(photo: Image.Image) -> list[Image.Image]:
    """The photo cut into squares of ``TILE`` pixels."""
    return [
        photo.crop((x, y, x + TILE, y + TILE))
        for y in range(0, photo.height - TILE + 1, TILE)
        for x in range(0, photo.width - TILE + 1, TILE)
    ]


def numbered(pictures: list[Image.Image], folder: Path) -> None:
    """Write pictures as ``00.png``, ``01.png``, ... into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number:02}.png")


def faces(photos: dict[str, Image.Image], folder: Path) -> None:
    """Write faces and the table of their parts."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for name, (box, parts) in FACES.items():
        photos[name].crop(box).save(folder / f"{name}.png")
        listed.append({"image": f"{name}.png", "parts": parts})
    (folder / "parts.json").write_text(json.dumps({"photos": listed}, indent=1) + "\n")


def write(folder: Path) -> None:
    """Write all photos and the tables."""
    place = folder / "scenes"
    place.mkdir(parents=True, exist_ok=True)
    photos = {name: scene(source) for name, source in SCENES.items()}
    for name, photo in photos.items():
        photo.save(place / f"{name}.png")
    with (place / "boxes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "label", "x0", "y0", "x1", "y1"))
        rows.writerows((f"{name}.png", label, *box) for name, (label, box) in BOXES.items())
    faces(photos, folder / "faces")
    for label, name in VIEWS.items():
        numbered(views(photos[name]), folder / "objects" / label)
    for name in SURFACES:
        numbered(tiles(scene(name)), folder / "textures" / name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
    print(f"photos in {sys.argv[1]}")
