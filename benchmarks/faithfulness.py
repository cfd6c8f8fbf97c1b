"""Do a model's maps show what its items depend on? Methods beside maps that know nothing.

python benchmarks/faithfulness.py MODEL PHOTO... [-m METHOD]... [--task TASK] [--set key=value]...

Of every photo one item is explained by each method: of a detector the most certain box, if the
model is sure of it, of a segmenter the largest region, of a reader of text the most certain
character, of an embedding the similarity to the photo that is nearest to it among the others.  Four
numbers, averaged over the photos, with the standard error of the mean:

    inside        share of the map's positive sum that lies in the item's box or region
    peak          whether the map's largest value does
    deletion      area under the curve while the pixels that count most are replaced first: low is
                  faithful (Petsiuk et al. 2018)
    insertion     the same while they are put in first: high is faithful

The number of a detector's curve is the box's similarity to the most similar box of the changed
image (IoU x cosine of the class scores x objectness, Petsiuk et al. 2021), divided by that of the
image itself.  That of another task is the number that is explained, from 0 for an image of one
colour to 1 for the photo.  Replaced pixels take the mean colour of the preprocessing.
"""

import argparse
import glob
import sys
from pathlib import Path

import numpy as np

import inspector
from inspector.errors import InspectorError
from inspector.heatmap import Heatmap
from inspector.measures.faithfulness import deletion, insertion, reference_maps
from inspector.measures.imputation import constant
from inspector.passes.maps import Map
from inspector.photos.geometry import Geometry
from inspector.photos.occluder import fill_colour
from inspector.photos.photo import Photo
from inspector.run import ExplainRun

CERTAIN = 0.25
METHODS = ("hires-cam", "layer-cam", "grad-cam", "grad-cam++", "x-grad-cam", "eigen-cam")
METHODS += ("input-x-gradient", "smooth-grad:samples=20")
MORE = {"detector": ("d-rise:masks=1000",)}
COLUMNS = ("inside", "peak", "deletion", "insertion")
NO_PLACE = float("nan")


def numbers(values, x, place, score, infill, steps):  # noqa: ANN001, ANN201, PLR0917 - a script
    """The four numbers of one map (H, W)."""
    curves = [
        measure(score, x, values, infill, steps=steps).area for measure in (deletion, insertion)
    ]
    if place is None:
        return [NO_PLACE, NO_PLACE, *curves]
    positive = np.clip(np.nan_to_num(values), 0, None)
    inside = float(positive[place].sum() / positive.sum()) if positive.any() else NO_PLACE
    return [inside, float(place.ravel()[int(np.nanargmax(values))]), *curves]


def place_of(item, size):  # noqa: ANN001, ANN201 - a script
    """(H, W), True where an item lies; None where it has no place."""
    if item.mask is not None or item.box is None:
        return item.mask
    found = np.zeros(size, bool)
    top, left, bottom, right = (max(round(v), 0) for v in item.box)
    found[top:bottom, left:right] = True
    return found


def measured(model, target, images):  # noqa: ANN001, ANN201 - a script
    """What is explained, of images (N, C, H, W)."""
    by_box = bool(target.seen_in)
    tensors = target.seen_in if by_box else target.read_from
    several = 1 if target.moves else len(images)
    scores = []
    for start in range(0, len(images), several):
        got = model.forward(images[start : start + several], tensors)
        for i in range(min(several, len(images) - start)):
            own = {n: v[i] if by_box else v[i : i + 1] for n, v in got.items()}
            scores.append(target.similarity(own) if by_box else target.measured(own))
    return np.asarray(scores)


def of_photo(model, path, asked, methods, steps):  # noqa: ANN001, ANN201 - a script
    """Rows by name of one photo, and the share of the input that the item covers; None unsure."""
    photo = Photo.open(path)
    x, _ = model.preprocessing.preprocess.apply(photo)
    task = asked["task"]
    wanted = None if task == "embedding" else "top1"
    run = ExplainRun(model, list(methods), wanted, None, None, **asked)
    values = run.forward(x[None])
    size = (x.shape[1], x.shape[2])
    geometry = Geometry.identity(size)
    ((target,), found) = run._wanted(values, 0, geometry, photo.name, ())  # noqa: SLF001
    item = found.chosen[0]
    if task == "detector" and (item.score is None or item.score < CERTAIN):
        return None
    colour = fill_colour(model.preprocessing.preprocess, "mean")
    plain = np.broadcast_to(colour.astype(x.dtype)[:, None, None], x.shape)
    none, whole = measured(model, target, np.stack([plain, x]))
    none = 0.0 if target.seen_in else none
    if whole <= none:
        return None  # the photo says no more of it than an image of one colour

    def score(images):  # noqa: ANN001, ANN202 - a closure
        return (measured(model, target, images) - none) / (whole - none)

    maps = {
        one.request.label: Heatmap.of(one.attribution, geometry).values
        for one in run.maps(x[None], values, [(target,)])[0]
        if isinstance(one, Map)
    }
    maps |= {f"({name})": values for name, values in reference_maps(x).items()}
    place = place_of(item, size)
    rows = {n: numbers(v, x, place, score, constant(colour), steps) for n, v in maps.items()}
    print(f"{Path(path).name}: {item.label} {item.score or 0:.2f}", file=sys.stderr)
    return rows, NO_PLACE if place is None else float(place.mean())


def nearest(model, paths):  # noqa: ANN001, ANN201 - a script
    """For every photo the one whose vector has the largest cosine to its own."""
    vectors = []
    output = model.reading("embedding").outputs[0]
    for path in paths:
        x, _ = model.preprocessing.preprocess.apply(Photo.open(path))
        vector = np.asarray(model.forward(x[None], [output])[output], np.float64).ravel()
        vectors.append(vector / np.linalg.norm(vector))
    alike = np.stack(vectors) @ np.stack(vectors).T
    np.fill_diagonal(alike, -np.inf)
    return [paths[i] for i in alike.argmax(axis=1)]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("photos", nargs="+")
    parser.add_argument("-m", "--method", action="append", default=[])
    parser.add_argument("--task", default=None, help="where it cannot be found out")
    parser.add_argument("--preprocess", default=None)
    parser.add_argument("--set", action="append", default=[], help="preprocessing, key=value")
    parser.add_argument("--steps", type=int, default=25)
    chosen = parser.parse_args()
    model = inspector.load(
        chosen.model, preprocess=chosen.preprocess, overrides=chosen.set, unverified=True
    )
    reading = model.reading(chosen.task)
    if reading is None:
        sys.exit("a classifier is measured by `inspector audit`")
    print(reading.why, file=sys.stderr)
    paths = [p for pattern in chosen.photos for p in sorted(glob.glob(pattern))]  # noqa: PTH207
    methods = chosen.method or (*METHODS, *MORE.get(reading.task, ()))
    beside = nearest(model, paths) if reading.task == "embedding" else [None] * len(paths)
    rows: dict[str, list[list[float]]] = {}
    shares = []
    for path, other in zip(paths, beside, strict=True):
        try:
            asked = {"task": chosen.task or reading.task, "similar_to": other}
            found = of_photo(model, path, asked, methods, chosen.steps)
        except InspectorError as error:
            print(f"{path}: {error}", file=sys.stderr)
            continue
        except KeyboardInterrupt:  # the table of what is done
            break
        if found is not None:
            shares.append(found[1])
            for name, own in found[0].items():
                rows.setdefault(name, []).append(own)
    if not rows:
        sys.exit("the model is not sure of anything in any photo")
    covered = (
        "" if np.isnan(shares).all() else f"; the item covers {np.mean(shares):.3f} of the input"
    )
    print(f"\n{len(shares)} photos{covered}\n")
    print("| method | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, own in rows.items():
        cells = [cell(np.asarray(column)) for column in zip(*own, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def cell(values: np.ndarray) -> str:
    """Mean and standard error of a column; a dash where there is nothing to measure."""
    values = values[~np.isnan(values)]
    if not values.size:
        return "-"
    error = values.std(ddof=min(1, values.size - 1)) / np.sqrt(values.size)
    return f"{values.mean():.2f} ± {error:.2f}"


if __name__ == "__main__":
    main()
