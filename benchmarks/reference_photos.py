"""Share of reference photos that are said to show nothing that an embedding compares: three kinds.

python benchmarks/reference_photos.py MODEL --faces 'faces/*.png' --others 'photos/*.jpg'
    [--preprocess NAME] [--set key=value]...

Every face is compared with itself in a mirror, with the other faces and with the middle squares of
photos of something else, as ``inspector explain --similar-to`` compares them: the similarity is
held against those to pictures that have the reference's colours and none of its content.
"""

import argparse
import glob

import numpy as np
from PIL import Image, ImageOps

import inspector
from inspector.photos.contentless import contentless


def vectors(model, output, image):  # noqa: ANN001, ANN201 - a script
    """Unit vectors of a picture, and of the pictures without its content."""
    photo = inspector.Photo.of(np.asarray(image.convert("RGB")))
    tensor, geometry = model.preprocessing.preprocess.apply(photo)
    found = [
        np.ravel(model.forward(one[None], [output])[output][:1]).astype(np.float64)
        for one in (tensor, *contentless(tensor, geometry))
    ]
    found = [one / np.linalg.norm(one) for one in found]
    return found[0], np.stack(found[1:])


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--faces", required=True, help="a pattern")
    parser.add_argument("--others", required=True, help="a pattern")
    parser.add_argument("--preprocess", default=None)
    parser.add_argument("--set", action="append", default=[], help="preprocessing, key=value")
    chosen = parser.parse_args()
    model = inspector.load(chosen.model, preprocess=chosen.preprocess, overrides=chosen.set)
    output = model.reading("embedding").outputs[0]
    faces = [Image.open(path) for path in sorted(glob.glob(chosen.faces))]  # noqa: PTH207 - a pattern
    others = [Image.open(path) for path in sorted(glob.glob(chosen.others))]  # noqa: PTH207
    others = [ImageOps.fit(one, (min(one.size),) * 2) for one in others]
    own = [vectors(model, output, one) for one in faces]
    mirrored = [vectors(model, output, ImageOps.mirror(one)) for one in faces]
    rest = [vectors(model, output, one) for one in others]
    pairs = {
        "the same face in a mirror": [(a[0], b) for a, b in zip(own, mirrored, strict=True)],
        "another face": [(a[0], b) for a in own for b in own if a is not b],
        "something else": [(a[0], b) for a in own for b in rest],
    }
    print("| reference | pairs | similarity | said to be chance |\n|---|---|---|---|")
    for name, found in pairs.items():
        alike = np.array([vector @ reference for vector, (reference, _) in found])
        chance = [v @ r <= (c @ v).max() for v, (r, c) in found]
        print(
            f"| {name} | {len(found)} | {alike.mean():.2f} \u00b1 {alike.std():.2f} | "
            f"{np.mean(chance):.0%} |"
        )


if __name__ == "__main__":
    main()
