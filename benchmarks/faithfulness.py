"""Do a detector's maps show what its boxes depend on? Methods beside maps that know nothing.

python benchmarks/faithfulness.py MODEL PHOTO... [-m METHOD]... [--set key=value]...

Of every photo in which the model is sure of a box, the most certain one is explained by each
method.  Four numbers, averaged over the photos, with the standard error of the mean:

    in the box    share of the map's positive sum that lies inside the box
    peak          whether the map's largest value does
    deletion      area under the curve while the pixels that count most are replaced first: low is
                  faithful (Petsiuk et al. 2018)
    insertion     the same while they are put in first: high is faithful

The number of a curve is the box's similarity to the most similar box of the changed image (IoU x
cosine of the class scores x objectness, Petsiuk et al. 2021), divided by that of the image itself.
Replaced pixels take the mean colour of the preprocessing.
"""

import argparse
import glob
import sys
from pathlib import Path

import numpy as np

import inspector
from inspector.errors import InspectorError
from inspector.heatmap import Heatmap
from inspector.measures.faithfulness import (
    constant,
    deletion,
    grid_share,
    insertion,
    reference_maps,
)
from inspector.passes.maps import Map
from inspector.photos.geometry import Geometry
from inspector.photos.occluder import fill_colour
from inspector.photos.photo import Photo
from inspector.run import ExplainRun

CERTAIN = 0.25
METHODS = (
    "hires-cam",
    "layer-cam",
    "grad-cam",
    "grad-cam++",
    "x-grad-cam",
    "eigen-cam",
    "input-x-gradient",
    "smooth-grad:samples=20",
    "d-rise:masks=1000",
)
COLUMNS = ("in the box", "peak", "deletion", "insertion")


def numbers(values, x, box, score, infill, steps):  # noqa: ANN001, ANN201, PLR0917 - a script
    """The four numbers of one map (H, W)."""
    top, left, bottom, right = (round(v) for v in box)
    y, x_ = np.unravel_index(int(np.nanargmax(values)), values.shape)
    curves = [
        measure(score, x, values, infill, steps=steps).area for measure in (deletion, insertion)
    ]
    inside = grid_share(values, (max(top, 0), max(left, 0), bottom, right))
    return [inside, float(top <= y < bottom and left <= x_ < right), *curves]


def of_photo(model, path, methods, steps):  # noqa: ANN001, ANN201 - a script
    """Rows by name of one photo, and the share of the input that the box covers; None unsure."""
    photo = Photo.open(path)
    x, _ = model.preprocessing.preprocess.apply(photo)
    run = ExplainRun(model, list(methods), "top1", None, None)
    values = run.forward(x[None])
    size = x.shape[1:]
    geometry = Geometry.identity((size[0], size[1]))
    ((target,), found) = run._wanted(values, 0, geometry, photo.name)  # noqa: SLF001
    item = found.chosen[0]
    if item.score is None or item.score < CERTAIN or not target.seen_in:
        return None

    def similar(images):  # noqa: ANN001, ANN202 - a closure
        several = 1 if target.moves else len(images)
        scores = []
        for start in range(0, len(images), several):
            got = model.forward(images[start : start + several], target.seen_in)
            rows = range(min(several, len(images) - start))
            scores += [target.similarity({n: v[i] for n, v in got.items()}) for i in rows]
        return np.asarray(scores)

    whole = float(similar(x[None])[0])

    def score(images):  # noqa: ANN001, ANN202 - a closure
        return similar(images) / whole

    infill = constant(fill_colour(model.preprocessing.preprocess, "mean"))
    maps = {
        one.request.label: Heatmap.of(one.attribution, geometry).values
        for one in run.maps(x[None], values, [(target,)])[0]
        if isinstance(one, Map)
    }
    maps |= {f"({name})": values for name, values in reference_maps(x).items()}
    rows = {n: numbers(v, x, item.box, score, infill, steps) for n, v in maps.items()}
    top, left, bottom, right = np.clip(item.box, 0, [*size, *size])
    print(f"{Path(path).name}: {item.label} {item.score:.2f}", file=sys.stderr)
    return rows, float((bottom - top) * (right - left) / (size[0] * size[1]))


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("photos", nargs="+")
    parser.add_argument("-m", "--method", action="append", default=[])
    parser.add_argument("--preprocess", default=None)
    parser.add_argument("--set", action="append", default=[], help="preprocessing, key=value")
    parser.add_argument("--steps", type=int, default=25)
    chosen = parser.parse_args()
    model = inspector.load(
        chosen.model, preprocess=chosen.preprocess, overrides=chosen.set, unverified=True
    )
    print(model.meaning, file=sys.stderr)
    paths = [p for pattern in chosen.photos for p in sorted(glob.glob(pattern))]  # noqa: PTH207
    rows: dict[str, list[list[float]]] = {}
    shares = []
    for path in paths:
        try:
            found = of_photo(model, path, chosen.method or METHODS, chosen.steps)
        except InspectorError as error:
            print(f"{path}: {error}", file=sys.stderr)
            continue
        if found is not None:
            shares.append(found[1])
            for name, own in found[0].items():
                rows.setdefault(name, []).append(own)
    if not rows:
        sys.exit("the model is not sure of a box in any photo")
    print(f"\n{len(shares)} photos; the box covers {np.mean(shares):.3f} of the input\n")
    print("| method | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, own in rows.items():
        values = np.asarray(own)
        error = values.std(0, ddof=min(1, len(values) - 1)) / np.sqrt(len(values))
        cells = [f"{m:.2f} ± {e:.2f}" for m, e in zip(values.mean(0), error, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
