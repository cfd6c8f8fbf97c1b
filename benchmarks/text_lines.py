"""Lines of text that a text detector finds in photos, each cut out as a file of its own.

python benchmarks/text_lines.py DETECTOR READER PHOTO... -o DIR

DETECTOR gives a plane of probabilities (PP-OCR's ``ch_PP-OCRv4_det_infer.onnx``), READER reads a
line (``ch_PP-OCRv4_rec_infer.onnx``; both come in the PyPI wheel `rapidocr-onnxruntime`).  Lines
that the reader is not sure of are left out.  `benchmarks/faithfulness.py` takes what is written.
"""

import argparse
import glob
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

import inspector
from inspector.photos.geometry import Geometry
from inspector.photos.photo import Photo
from inspector.tasks import Sample

DETECTOR = ("resize=letterbox", "size=640,640")
READER = ("size=48,320", "resize=letterbox", "mean=0.5,0.5,0.5", "std=0.5,0.5,0.5", "channels=BGR")
TEXT = 0.3
"""Probability from which a pixel is text; PP-OCR's default."""

SURE = 0.6
"""Mean probability of its characters from which a line is kept."""

LEAST = (8, 20)
MARGIN = 0.4  # of a line's height; the detector is trained on shrunken lines


def lines(detector, photo):  # noqa: ANN001, ANN201 - a script
    """Pixels (top, bottom, left, right) of the photo for each line that is found."""
    x, geometry = detector.preprocessing.preprocess.apply(photo)
    (output,) = detector.graph.outputs
    plane = np.asarray(detector.forward(x[None], [output])[output]).reshape(geometry.input)
    for rows, columns in ndimage.find_objects(ndimage.label(plane > TEXT)[0]):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if height >= LEAST[0] and width >= LEAST[1]:
            edge = np.array([-MARGIN * height, MARGIN * height])
            y, x_ = geometry.to_photo(
                np.array([rows.start, rows.stop]) + edge,
                np.array([columns.start, columns.stop]) + edge,
            )
            limits = np.repeat(photo.size, 2)
            yield tuple(int(v) for v in np.clip([*y, *x_], 0, limits))


def read(reader, photo):  # noqa: ANN001, ANN201 - a script
    """The characters of a line, and their mean probability."""
    x, _ = reader.preprocessing.preprocess.apply(photo)
    reading = reader.reading("sequence")
    values = reader.forward(x[None], list(reading.outputs))
    rows = {name: np.asarray(value)[0] for name, value in values.items()}
    items = reading.items(Sample(rows, Geometry.identity((x.shape[1], x.shape[2]))))
    text = "".join(item.label.partition(" ")[2] for item in items)
    return text, float(np.mean([item.score for item in items])) if items else 0.0


def main() -> None:
    """Write the lines that can be read."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("detector")
    parser.add_argument("reader")
    parser.add_argument("photos", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    detector = inspector.load(chosen.detector, preprocess="imagenet", overrides=DETECTOR)
    reader = inspector.load(chosen.reader, preprocess="unit", overrides=READER)
    for path in (p for pattern in chosen.photos for p in sorted(glob.glob(pattern))):  # noqa: PTH207
        photo = Photo.open(path)
        for number, (top, bottom, left, right) in enumerate(lines(detector, photo)):
            line = photo.rgb8[top:bottom, left:right]
            text, sure = read(reader, Photo.of(line, path))
            if len(text) > 1 and sure >= SURE:
                name = chosen.output / f"{Path(path).stem}.{number}.png"
                Image.fromarray(line).save(name)
                print(f"{name}: {text} ({sure:.2f})", flush=True)


if __name__ == "__main__":
    main()
