"""Random networks on which a heatmap can go wrong, each with one planted square.

A scene is a network with hand-set weights, a photo, and a red square in it of which the score is
known to depend: a filter answers to "redder than green", its mean becomes one class's logit.
Around that stand the structures that exporters and authors write: photos cut into tiles that
become rows of the batch, mirrored branches, crops, transposes, several heads, normalisation in
training mode, outputs without a batch axis, members of an ensemble that look elsewhere.

That the score depends on the square and on nothing else is not assumed but measured, one image
at a time in ONNX Runtime; a draw of which it does not hold is drawn again.

    python tests/property/wrongable_graphs.py --seed 7 --kind tiles-reshape --save out.onnx
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from wrongable_kinds import KINDS, Draft
from wrongable_pieces import Net, Rejected

FREE_BATCH = "n"
SQUARE = (220, 60, 60)
OTHER = (60, 60, 220)


@dataclass
class Scene:
    """A network, a photo, and what is known of both.

    Attributes:
        kind: Name of the builder, a key of `KINDS`.
        seed: What to draw it from.
        model: The network.
        photo: (H, W, 3) uint8.
        others: Photos that are explained in the same call.
        box: (y0, x0, y1, x1) of the square in the photo.
        target: The target, as a user types it.
        numbers: (tensor, index) of every number that the target may stand for, the score before
            a softmax or sigmoid first.
        sign: 1 where the square raises the explained number, -1 where it lowers it.
        opposite: The number explained is the negative of the unit's score.
        radius: Half of a unit's receptive field at the deepest layer, in pixels of the photo.
        stride: Pixels of the photo between its units.
        even: Every part of the square has the same effect: no unit that would see it lies
            outside of the grid.
        excuses: Keys of the oracle's `EXCUSES` that are true of this network.
        drawn: Whether a refusal would be wrong, too.
        dice: The network draws random numbers.
        mixes: Photos of one batch depend on each other.
        labels: Class names for the tool.
    """

    kind: str
    seed: int
    model: onnx.ModelProto
    photo: np.ndarray
    others: list[np.ndarray]
    box: tuple[int, int, int, int]
    target: str
    numbers: list[tuple[str, tuple[int, ...]]]
    sign: int = 1
    opposite: bool = False
    radius: float = 0.0
    stride: float = 1.0
    even: bool = False
    excuses: frozenset[str] = frozenset()
    drawn: bool = False
    dice: bool = False
    mixes: bool = False
    labels: tuple[str, ...] = ()


class Alone:
    """A network in ONNX Runtime, one image at a time, every asked tensor an output.

    Args:
        model: The network.
        tensors: Tensors to return beside the outputs.
    """

    def __init__(self, model: onnx.ModelProto, tensors: list[str]) -> None:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        known = {o.name for o in copy.graph.output}
        copy.graph.output.extend(onnx.ValueInfoProto(name=n) for n in tensors if n not in known)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(
            copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name

    def __call__(self, image: np.ndarray, tensor: str, index: tuple[int, ...]) -> float:
        """One number of one image (3, H, W)."""
        (value,) = self.session.run([tensor], {self.input: image[None].astype(np.float32)})
        return float(value[index])


def unit(photo: np.ndarray) -> np.ndarray:
    """(H, W, 3) bytes to the network's input (3, H, W), 0 to 1."""
    return photo.astype(np.float32).transpose(2, 0, 1) / np.float32(255)


# -- planting -----------------------------------------------------------------------------------

ATTEMPTS = 80


def scene(kind: str, seed: int) -> Scene:
    """Draw a scene; the same one for the same arguments.

    Raises:
        RuntimeError: No draw planted its square well.
    """
    place = list(KINDS).index(kind)
    for attempt in range(ATTEMPTS):
        try:
            return _draw(kind, seed, np.random.default_rng([place, seed, attempt]))
        except Rejected:
            continue
    raise RuntimeError(f"no draw of {kind} {seed} plants its square well")


def _draw(kind: str, seed: int, rng: np.random.Generator) -> Scene:
    size = (4 * int(rng.integers(5, 13)), 4 * int(rng.integers(5, 13)))
    net = Net(rng, size, FREE_BATCH if rng.random() < 0.6 else 1)
    draft = KINDS[kind](net)
    if draft.company:
        net.batch = FREE_BATCH
        name, shape = net.outputs[0]
        net.outputs[0] = name, (FREE_BATCH, *shape[1:])
    model = net.model()
    side = int(rng.integers(6, min(11, min(size) // 2)))
    ground = np.full((*size, 3), float(rng.uniform(60, 110)))
    ground = np.clip(ground + rng.normal(0, 3, ground.shape), 0, 255).astype(np.uint8)
    tensor, index = draft.numbers[0]
    try:
        alone = Alone(model, [name for name, _ in draft.numbers])
        f = _Number(alone, tensor, index)
        f(ground)
    except Exception as error:
        raise Rejected from error
    sign = -1 if draft.opposite else draft.sign
    if draft.dice:
        box = (size[0] // 2 - side // 2, size[1] // 2 - side // 2, side, side)
        box = (box[0], box[1], box[0] + side, box[1] + side)
    else:
        box = _place(f, ground, side, sign, rng)
    photo = _painted(ground, box, SQUARE)
    other = _free_corner(size, box, side, rng)
    if other is not None and rng.random() < 0.7:
        photo = _painted(photo, other, OTHER)
    even = False if draft.dice else _measured(f, photo, box, sign, draft.spread)
    target = _settled(draft, alone, photo)
    others: list[np.ndarray] = []
    if net.batch == FREE_BATCH and (draft.company or rng.random() < 0.25):
        others = [_neighbour(size, rng) for _ in range(2)]
    filters = draft.filters
    return Scene(
        kind,
        seed,
        model,
        photo,
        others,
        box,
        target,
        draft.numbers,
        sign=draft.sign,
        opposite=draft.opposite,
        radius=(filters.field - 1) / 2 * net.pixel,
        stride=filters.step * max(net.pixel, 1.0),
        even=even,
        excuses=draft.excuses,
        drawn=draft.drawn,
        dice=draft.dice,
        mixes=bool(draft.company),
        labels=draft.labels,
    )


class _Number:
    """One number of a photo (H, W, 3), the photo alone."""

    def __init__(self, alone: Alone, tensor: str, index: tuple[int, ...]) -> None:
        self.alone, self.tensor, self.index = alone, tensor, index

    def __call__(self, photo: np.ndarray) -> float:
        return self.alone(unit(photo), self.tensor, self.index)


def _painted(photo: np.ndarray, box: tuple[int, int, int, int], colour: Any) -> np.ndarray:
    y0, x0, y1, x1 = box
    copy = photo.copy()
    copy[y0:y1, x0:x1] = colour
    return copy


def _place(
    f: _Number, ground: np.ndarray, side: int, sign: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Somewhere where the square has nearly all the effect that it can have."""
    base = f(ground)
    boxes, effects = [], []
    for y in range(0, ground.shape[0] - side + 1, 4):
        for x in range(0, ground.shape[1] - side + 1, 4):
            boxes.append((y, x, y + side, x + side))
            effects.append(sign * (f(_painted(ground, boxes[-1], SQUARE)) - base))
    best = max(effects)
    if not best > 0.5:
        raise Rejected
    good = [box for box, effect in zip(boxes, effects, strict=True) if effect >= 0.7 * best]
    return good[int(rng.integers(len(good)))]


def _free_corner(
    size: tuple[int, int], box: tuple[int, int, int, int], side: int, rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    gap = 5
    for _ in range(20):
        y, x = (int(rng.integers(n - side + 1)) for n in size)
        apart = (
            y + side + gap <= box[0]
            or box[2] + gap <= y
            or x + side + gap <= box[1]
            or box[3] + gap <= x
        )
        if apart:
            return y, x, y + side, x + side
    return None


def _measured(
    f: _Number, photo: np.ndarray, box: tuple[int, int, int, int], sign: int, spread: float
) -> bool:
    """Check that the score hangs on the square alone; whether it does so evenly.

    Raises:
        Rejected: It does not.
    """
    y0, x0, y1, x1 = box
    side = y1 - y0
    level = np.median(photo.reshape(-1, 3), axis=0)
    base = f(photo)
    effect = sign * (base - f(_painted(photo, box, level)))
    if not effect > 0.4:
        raise Rejected
    for y in range(0, photo.shape[0], side):
        for x in range(0, photo.shape[1], side):
            if y < y1 and y + side > y0 and x < x1 and x + side > x0:
                continue
            patch = (y, x, y + side, x + side)
            if abs(base - f(_painted(photo, patch, level))) > spread * effect:
                raise Rejected
    middle = (y0 + side // 2, x0 + side // 2)
    half = side // 2
    corners = [(y0, x0), (y0, x1 - half), (y1 - half, x0), (y1 - half, x1 - half), middle]
    parts = [
        sign * (base - f(_painted(photo, (y, x, y + half, x + half), level)))
        for y, x in corners[:4]
    ]
    return min(parts) > 0.85 * max(parts)


def _settled(draft: Draft, alone: Alone, photo: np.ndarray) -> str:
    """The target's text, once the scores are known.

    Raises:
        Rejected: The unit does not judge the photo negative.
    """
    tensor, index = draft.numbers[0]
    if draft.opposite:
        if alone(unit(photo), tensor, index) >= -0.1:
            raise Rejected
        return draft.target
    if draft.target == "top1":
        (row,) = alone.session.run([tensor], {alone.input: unit(photo)[None]})
        if int(np.argmax(row[0])) != index[1]:
            return str(index[1])
    return draft.target


def _neighbour(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Another photo: brighter or darker, with squares of its own."""
    photo = np.full((*size, 3), float(rng.uniform(20, 200)))
    photo = np.clip(photo + rng.normal(0, 12, photo.shape), 0, 255).astype(np.uint8)
    for colour in ((255, 0, 30), (30, 30, 255)):
        side = int(rng.integers(5, 12))
        y, x = (int(rng.integers(n - side + 1)) for n in size)
        photo = _painted(photo, (y, x, y + side, x + side), colour)
    return photo


def main() -> int:
    """Write one scene's network, and say what the tool makes of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="the network; the photo goes beside it")
    options = parser.parse_args()
    from wrongable_oracle import judge, methods_of, opened

    for kind in KINDS if options.kind == "all" else [options.kind]:
        found = scene(kind, options.seed)
        explainer = opened(found)
        if options.save:
            from PIL import Image

            onnx.save(found.model, options.save)
            Image.fromarray(found.photo).save(options.save.with_suffix(".png"))
            for number, photo in enumerate(found.others):
                name = f"{options.save.stem}.other{number}.png"
                Image.fromarray(photo).save(options.save.with_name(name))
        print(  # noqa: T201 - a script
            f"{kind} {options.seed}: input {found.photo.shape[:2]}, square (y0, x0, y1, x1) "
            f"{found.box}, --preprocess unit --target {found.target!r}, sign {found.sign}"
        )
        for method in methods_of(found):
            verdict = judge(found, method, explainer)
            print(f"  {method:16} {verdict.word:8} {verdict.text}")  # noqa: T201
    return 0


if __name__ == "__main__":
    root = Path(__file__).resolve()
    sys.path[:0] = [str(root.parents[2]), str(root.parent)]
    sys.exit(main())
