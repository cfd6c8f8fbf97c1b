"""A folder with stand-ins for the files that the documentation names."""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import FILES, ROOT
from PIL import Image

SAMPLES = ROOT / "sample_models"

PHOTOS_PER_CLASS = 20
"""Fewer than the 40 that ``sample_models/photos.py`` writes; 16 train in each of five folds."""


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file of ``FILES``, folders of photos with tables, and ``sample_models`` itself."""
    folder = tmp_path_factory.mktemp("documentation")
    (folder / "sample_models").symlink_to(SAMPLES, target_is_directory=True)
    for name, sample in FILES.items():
        if name.endswith(".jpg"):
            Image.open(SAMPLES / sample).convert("RGB").save(folder / name, quality=95)
        elif (SAMPLES / sample).is_dir():
            shutil.copytree(SAMPLES / sample, folder / name)
        else:
            shutil.copy(SAMPLES / sample, folder / name)
    photos(folder / "photos")
    return folder


def photos(folder: Path) -> None:
    """Write photos in a folder per class, the sample images beside the folders, and a table."""
    names = (SAMPLES / "labels.txt").read_text().split()
    with np.load(SAMPLES / "cifar10_sample.npz", allow_pickle=False) as sample:
        images, classes = sample["x"], sample["y"]
    rows = []
    for index, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number, pixels in enumerate(images[classes == index][:PHOTOS_PER_CLASS]):
            path = folder / name / f"{number:03d}.png"
            Image.fromarray(pixels).save(path)
            rows.append((path.relative_to(folder).as_posix(), name))
    for path in (SAMPLES / "images").glob("*.png"):
        shutil.copy(path, folder)
    with (folder.parent / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *rows])


@pytest.fixture
def workspace(stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of stand-ins as the current one."""
    monkeypatch.chdir(stand_ins)
    monkeypatch.setattr(sys, "argv", ["inspector"])
    return stand_ins
