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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from wrongable_pieces import (
    CHANNELS,
    FOLDS,
    Filters,
    Fold,
    Linear,
    Net,
    Rejected,
    crop,
    flip,
    flips_folded,
    joined,
    mirrored,
    moves,
    padded,
    resized,
    rolled,
    rotated,
    scale_of,
    tiles_reshape,
    tiles_slices,
    transposed,
)

SQUARE = (220, 60, 60)
OTHER = (60, 60, 220)
FREE_BATCH = "n"


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


@dataclass
class Draft:
    """What a builder hands back."""

    target: str
    numbers: list[tuple[str, tuple[int, ...]]]
    filters: Filters
    sign: int = 1
    opposite: bool = False
    excuses: frozenset[str] = frozenset({"place"})
    drawn: bool = False
    dice: bool = False
    company: bool | None = None
    labels: tuple[str, ...] = ()
    spread: float = 0.2


def classify(net: Net, x: str, filters: Filters, *, fold: Any = None, **more: Any) -> Draft:
    """Filters, mean, linear head; rows of the batch joined again."""
    classes = net.among(2, 3, 5)
    sign = -1 if fold is None and net.chance(0.2) else 1
    head = Linear.draw(net, classes, sign, scale_of(net) * (0.3 if sign < 0 else 1))
    folded = fold(net, x) if fold else None
    features = filters.apply(net, folded.x if folded else x)
    logits = head.apply(net, features, "" if folded else "logits")
    if folded:
        logits = joined(net, logits, folded, classes, "logits")
    net.outputs.append(("logits", (net.batch, classes)))
    k = head.wanted
    target = net.among(str(k), f"logits[{k}]", "top1" if sign > 0 else str(k))
    return Draft(target, [("logits", (0, k))], filters, sign, **more)


def plain(net: Net) -> Draft:
    filters = Filters.draw(net, padded=True)
    return classify(net, "image", filters, excuses=frozenset(), drawn=True)


def unpadded(net: Net) -> Draft:
    kernel = net.among(5, 7, 9)
    dilation = net.among(1, 1, 2) if kernel == 5 else 1
    if net.chance(0.3):
        kernel, dilation = 3, net.among(2, 3, 4)
    filters = Filters.draw(net, kernel=kernel, dilation=dilation, padded=False, pool="")
    return classify(net, moves(net, "image", 0.15), filters)


def _moved(move: Callable[[Net, str], str]) -> Callable[[Net], Draft]:
    def build(net: Net) -> Draft:
        x = moves(net, move(net, "image"), 0.2)
        fold = net.among(*FOLDS) if net.chance(0.15) else None
        return classify(net, x, Filters.draw(net), fold=fold)

    return build


def _folded(fold: Callable[[Net, str], Fold]) -> Callable[[Net], Draft]:
    def build(net: Net) -> Draft:
        x = moves(net, "image", 0.25)
        return classify(net, x, Filters.draw(net, pool=""), fold=fold)

    return build


def mirrored_branch(net: Net) -> Draft:
    """score = (f(x) + f(mirrored x)) / 2, either branch first in the graph."""
    filters, head = Filters.draw(net), Linear.draw(net, 3, 1, scale_of(net))
    x = moves(net, "image", 0.2)
    inputs = [x, net.among(mirrored, transposed, rolled)(net, x)]
    net.rng.shuffle(inputs)
    parts = [head.apply(net, filters.apply(net, str(one))) for one in inputs]
    total = net.add("Add", parts, (1, 3))
    net.add("Mul", [total, net.constant(0.5)], (1, 3), name="logits")
    net.outputs.append(("logits", (net.batch, 3)))
    k = head.wanted
    return Draft(
        net.among(str(k), "top1"),
        [("logits", (0, k))],
        filters,
        excuses=frozenset({"place", "bypass"}),
    )


def _mixing(**fixed: Any) -> Callable[[Net], Draft]:
    """Rows of the batch that are not alone."""

    def build(net: Net) -> Draft:
        filters = Filters.draw(net, **{k: v(net) if callable(v) else v for k, v in fixed.items()})
        x = moves(net, "image", 0.15)
        draft = classify(net, x, filters, company=True, spread=0.45)
        if draft.target == "top1":
            draft.target = str(draft.numbers[0][1][1])
        return draft

    return build


def _centred(net: Net, x: str) -> str:
    mean = net.add("ReduceMean", [x], net.shapes[x], axes=[0], keepdims=1)
    half = net.add("Mul", [mean, net.constant(0.5)], net.shapes[x])
    return net.add("Sub", [x, half], net.shapes[x])


def centred_batch(net: Net) -> Draft:
    draft = classify(net, "image", Filters.draw(net, between=_centred), company=True, spread=0.45)
    if draft.target == "top1":
        draft.target = str(draft.numbers[0][1][1])
    return draft


def _probability(op_type: str) -> Callable[[Net], Draft]:
    """A named output that ends in a softmax or sigmoid, often saturated."""

    def build(net: Net) -> Draft:
        saturated = net.chance(0.5)
        filters = Filters.draw(net)
        head = Linear.draw(net, 3, 1, scale_of(net) * (25 if saturated else 1))
        x = moves(net, "image", 0.25)
        fold = net.among(*FOLDS)(net, x) if net.chance(0.2) else None
        logits = head.apply(net, filters.apply(net, fold.x if fold else x))
        if fold:
            logits = joined(net, logits, fold, 3)
        net.add(op_type, [logits], (1, 3), name="probs")
        net.outputs.append(("probs", (net.batch, 3)))
        k = head.wanted
        return Draft(
            net.among(f"probs[{k}]", f"probs[{k}]", str(k)),
            [(logits, (0, k)), ("probs", (0, k))],
            filters,
            excuses=frozenset({"place", "saturated"}),
        )

    return build


def heads(net: Net) -> Draft:
    """Several named outputs, one of them the target; each may have filters of its own."""
    filters = Filters.draw(net)
    shared = net.chance(0.5)
    x = moves(net, "image", 0.2)
    features = filters.apply(net, x) if shared else ""
    sizes = {"age": 1, "gender": 2, "race": 5}
    names = list(sizes)
    net.rng.shuffle(names)
    chosen = net.among(*names)
    scale = scale_of(net)
    draft = None
    for name in names:
        wanted = name == chosen
        head = Linear.draw(net, sizes[name], 1, scale, channel=0 if wanted else 1)
        if not wanted:
            head.weight[0] *= 0.01
        inside = features or filters.apply(net, x)
        ends = name != "age"
        logits = head.apply(net, inside, "" if ends else name)
        if ends:
            net.add("Softmax", [logits], (1, sizes[name]), name=name, axis=-1)
        net.outputs.append((name, (net.batch, sizes[name])))
        if wanted:
            k = head.wanted
            numbers = [(logits, (0, k))] + ([(name, (0, k))] if ends else [])
            draft = Draft(
                f"{name}[{k}]", numbers, filters, excuses=frozenset({"place", "saturated"})
            )
    if draft is None:
        raise Rejected
    return draft


def sigmoid_negative(net: Net) -> Draft:
    """One unit, judged negative because of the square: top1 is the negative side."""
    filters = Filters.draw(net)
    head = Linear.draw(net, 1, -1, scale_of(net))
    head.bias[:] = 0.3
    x = moves(net, "image", 0.2)
    logits = head.apply(net, filters.apply(net, x))
    net.add("Sigmoid", [logits], (1, 1), name="prob")
    net.outputs.append(("prob", (net.batch, 1)))
    labelled = net.chance(0.5)
    return Draft(
        net.among("top1", "healthy") if labelled else "top1",
        [(logits, (0, 0)), ("prob", (0, 0))],
        filters,
        opposite=True,
        sign=1,
        excuses=frozenset({"place", "saturated", "opposite"}),
        labels=("healthy", "diseased") if labelled else (),
    )


def flat_output(net: Net) -> Draft:
    """Scores of shape (K) for a batch of one."""
    net.batch = 1
    filters, head = Filters.draw(net), Linear.draw(net, 4, 1, scale_of(net))
    x = moves(net, "image", 0.2)
    logits = head.apply(net, filters.apply(net, x))
    if net.chance(0.5):
        net.add("Squeeze", [logits, net.ints(0)], (4,), name="out")
    else:
        net.add("Reshape", [logits, net.ints(4)], (4,), name="out")
    net.outputs.append(("out", (4,)))
    k = head.wanted
    return Draft(f"out[{k}]", [("out", (k,))], filters)


def _dense(net: Net) -> tuple[Filters, str, int, tuple[int, int]]:
    """Class maps (1, 3, h, w), and the cell whose field lies deepest in the square."""
    filters = Filters.draw(net, padded=True, pool="")
    x = net.among("image", flip(net, "image", net.among(2, 3)), crop(net, "image"))
    features = filters.apply(net, x)
    weight = 0.01 * net.rng.normal(size=(3, CHANNELS, 1, 1))
    k = int(net.rng.integers(3))
    weight[k, 0] = 8.0
    h, w = net.shapes[features][2:]
    maps = net.add(
        "Conv", [features, net.constant(weight)], (1, 3, h, w), kernel_shape=[1, 1], name="maps"
    )
    cell = (int(net.rng.integers(1, h - 1)), int(net.rng.integers(1, w - 1)))
    return filters, maps, k, cell


def cell_output(net: Net) -> Draft:
    """Rows of the output are places of the grid, not photos."""
    net.batch = 1
    filters, maps, k, (i, j) = _dense(net)
    h, w = net.shapes[maps][2:]
    x = net.add("Transpose", [maps], perm=[0, 2, 3, 1])
    net.add("Reshape", [x, net.ints(h * w, 3)], name="cells")
    net.outputs.append(("cells", (h * w, 3)))
    row = i * w + j
    return Draft(f"cells[{row},{k}]", [("cells", (row, k))], filters)


def mask_output(net: Net) -> Draft:
    """Class maps as the output, with a batch axis or without."""
    filters, maps, k, (i, j) = _dense(net)
    h, w = net.shapes[maps][2:]
    if net.chance(0.6):
        net.batch = 1
        net.add("Squeeze", [maps, net.ints(0)], name="mask")
        net.outputs.append(("mask", (3, h, w)))
        return Draft(f"mask[{k},{i},{j}]", [("mask", (k, i, j))], filters)
    net.outputs.append(("maps", (net.batch, 3, h, w)))
    return Draft(f"maps[{k},{i},{j}]", [("maps", (0, k, i, j))], filters)


def ensemble(net: Net) -> Draft:
    """Two members, of which one sees the square and the other a colour that is not there."""
    first, head = Filters.draw(net), Linear.draw(net, 3, 1, scale_of(net))
    blind = Filters.draw(net)
    blind.colours = blind.colours.copy()
    blind.colours[0] = [-1, 1, 0]
    members = [first, blind]
    net.rng.shuffle(members)
    x = moves(net, "image", 0.2)
    parts = [head.apply(net, one.apply(net, x)) for one in members]
    if net.chance(0.5):
        total = net.add("Add", parts, (1, 3))
        net.add("Mul", [total, net.constant(0.5)], (1, 3), name="logits")
    else:
        net.add("Mean", parts, (1, 3), name="logits")
    net.outputs.append(("logits", (net.batch, 3)))
    k = head.wanted
    return Draft(
        net.among(str(k), f"logits[{k}]"),
        [("logits", (0, k))],
        first,
        excuses=frozenset({"place", "bypass"}),
    )


def dead_end(net: Net) -> Draft:
    """Convolutions behind the target's own that end in another output."""
    filters = Filters.draw(net)
    head = Linear.draw(net, 3, 1, scale_of(net))
    x = moves(net, "image", 0.2)
    features = filters.apply(net, x)
    head.apply(net, features, "logits")
    h, w = net.shapes[features][2:]
    side = features
    for _ in range(int(net.rng.integers(1, 3))):
        weight = net.constant(net.rng.normal(size=(CHANNELS, CHANNELS, 1, 1)))
        side = net.add("Conv", [side, weight], (1, CHANNELS, h, w), kernel_shape=[1, 1])
        side = net.add("Relu", [side], (1, CHANNELS, h, w))
    net.outputs.append(("logits", (net.batch, 3)))
    if net.chance(0.5):
        Linear.draw(net, 7, 1, 1.0).apply(net, side, "aux")
        net.outputs.append(("aux", (net.batch, 7)))
    else:
        net.add("Identity", [side], name="aux")
        net.outputs.append(("aux", (net.batch, CHANNELS, h, w)))
    k = head.wanted
    return Draft(f"logits[{k}]", [("logits", (0, k))], filters)


def zero_path(net: Net) -> Draft:
    """The deepest layer reaches the score times nothing, or through a step function."""
    filters = Filters.draw(net)
    head = Linear.draw(net, 3, 1, scale_of(net))
    x = moves(net, "image", 0.2)
    features = filters.apply(net, x)
    real = head.apply(net, features)
    h, w = net.shapes[features][2:]
    weight = net.constant(net.rng.normal(size=(CHANNELS, CHANNELS, 1, 1)))
    side = net.add("Conv", [features, weight], (1, CHANNELS, h, w), kernel_shape=[1, 1])
    side = net.add("Relu", [side], (1, CHANNELS, h, w))
    side = Linear.draw(net, 3, 1, 1.0).apply(net, side)
    if net.chance(0.5):
        side = net.add("Mul", [side, net.constant(np.zeros(3))], (1, 3))
    else:
        bounds = [net.constant(-1e-6), net.constant(1e-6)]
        side = net.add("Clip", [side, *bounds], (1, 3))
    net.add("Add", [real, side], (1, 3), name="logits")
    net.outputs.append(("logits", (net.batch, 3)))
    k = head.wanted
    return Draft(
        net.among(str(k), f"logits[{k}]"),
        [("logits", (0, k))],
        filters,
        excuses=frozenset({"place", "bypass", "depends"}),
    )


def pyramid(net: Net) -> Draft:
    """Scores of a fine and a coarse grid in one list; the target is on the fine one."""
    filters = Filters.draw(net, padded=True, pool="", second=0, stride=net.among(1, 2))
    x = net.among("image", crop(net, "image"))
    fine = filters.apply(net, x)
    h, w = net.shapes[fine][2:]
    if h % 2 or w % 2:
        raise Rejected
    down = np.zeros((CHANNELS, CHANNELS, 2, 2), np.float32)
    down[range(CHANNELS), range(CHANNELS)] = 0.25
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    coarse = net.add("Conv", [fine, net.constant(down)], (1, CHANNELS, h // 2, w // 2), **window)
    coarse = net.add("Relu", [coarse], (1, CHANNELS, h // 2, w // 2))
    weight = 0.01 * net.rng.normal(size=(3, CHANNELS, 1, 1))
    k = int(net.rng.integers(3))
    weight[k, 0] = 8.0
    kernel = net.constant(weight)
    flat = []
    for level in (fine, coarse):
        y = net.add("Conv", [level, kernel], kernel_shape=[1, 1])
        flat.append(net.add("Reshape", [y, net.ints(0, 3, -1)]))
    x = net.add("Concat", flat, axis=2)
    net.add("Transpose", [x], name="out", perm=[0, 2, 1])
    count = h * w + (h // 2) * (w // 2)
    net.outputs.append(("out", (net.batch, count, 3)))
    i, j = int(net.rng.integers(1, h - 1)), int(net.rng.integers(1, w - 1))
    row = i * w + j
    return Draft(f"out[{row},{k}]", [("out", (0, row, k))], filters)


def tiles_in_channels(net: Net) -> Draft:
    """Four tiles side by side in the channels: one unit of the grid is four places."""
    h, w = net.size
    if h % 2 or w % 2:
        raise Rejected
    filters = Filters.draw(net, pool="", stride=1, second=0, normal="", padded=True, kernel=3)
    x = net.add("Reshape", ["image", net.ints(-1, 3, 2, h // 2, 2, w // 2)])
    x = net.add("Transpose", [x], perm=[0, 2, 4, 1, 3, 5])
    shape = (1, 12, h // 2, w // 2)
    x = net.add("Reshape", [x, net.ints(-1, *shape[1:])], shape)
    weight = np.zeros((CHANNELS, 12, 3, 3), np.float32)
    for tile in range(4):
        weight[:, 3 * tile : 3 * tile + 3] = filters.colours[:, :, None, None] / 9
    bias = np.array([-0.12, -0.12, 0.01, 0.01])
    features = net.add(
        "Conv",
        [x, net.constant(weight), net.constant(bias)],
        (1, CHANNELS, h // 2, w // 2),
        kernel_shape=[3, 3],
        pads=[1] * 4,
    )
    features = net.add("Relu", [features], net.shapes[features])
    head = Linear.draw(net, 3, 1, scale_of(net))
    head.apply(net, features, "logits")
    net.outputs.append(("logits", (net.batch, 3)))
    return Draft(str(head.wanted), [("logits", (0, head.wanted))], filters)


def attention(net: Net) -> Draft:
    """Maps weighed by one map of attention, which is the last convolution."""
    filters, head = Filters.draw(net), Linear.draw(net, 3, 1, scale_of(net))
    x = moves(net, "image", 0.2)
    features = filters.apply(net, x)
    shape = net.shapes[features]
    weight = np.zeros((1, CHANNELS, 1, 1))
    weight[0, 2:] = net.rng.normal(size=(2, 1, 1))
    gate = net.add(
        "Conv", [features, net.constant(weight)], (1, 1, *shape[2:]), kernel_shape=[1, 1]
    )
    gate = net.add("Sigmoid", [gate], (1, 1, *shape[2:]))
    weighed = net.add("Mul", [features, gate], shape)
    head.apply(net, weighed, "logits")
    net.outputs.append(("logits", (net.batch, 3)))
    if net.chance(0.5):
        net.add("Identity", [gate], name="attention")
        net.outputs.append(("attention", (net.batch, 1, *shape[2:])))
    return Draft(f"logits[{head.wanted}]", [("logits", (0, head.wanted))], filters)


def dice(net: Net) -> Draft:
    """Random numbers between the filters and the score."""
    how = net.among("RandomUniformLike", "RandomNormalLike", "Dropout", "Bernoulli")

    def roll(net: Net, x: str) -> str:
        shape = net.shapes[x]
        if how == "Dropout":
            yes = net.constant(True, np.bool_)
            return net.add("Dropout", [x, net.constant(0.5), yes], shape)
        if how == "Bernoulli":
            half = net.add("Sigmoid", [x], shape)
            random = net.add("Bernoulli", [half], shape)
        else:
            random = net.add(how, [x], shape)
        return net.add("Mul", [x, random], shape)

    draft = classify(net, moves(net, "image", 0.1), Filters.draw(net, between=roll), dice=True)
    if draft.target == "top1":
        draft.target = str(draft.numbers[0][1][1])
    return draft


KINDS: dict[str, Callable[[Net], Draft]] = {
    "plain": plain,
    "unpadded": unpadded,
    "mirrored": _moved(mirrored),
    "crop": _moved(crop),
    "transposed": _moved(transposed),
    "rotated": _moved(rotated),
    "padded": _moved(padded),
    "rolled": _moved(rolled),
    "resized": _moved(resized),
    "tiles-reshape": _folded(tiles_reshape),
    "tiles-slices": _folded(tiles_slices),
    "flips-folded": _folded(flips_folded),
    "tiles-in-channels": tiles_in_channels,
    "mirrored-branch": mirrored_branch,
    "batchnorm-training": _mixing(normal="training"),
    "dynamic-quantise": _mixing(quantise=lambda net: net.among("input", "features", "features")),
    "centred-batch": centred_batch,
    "softmax-head": _probability("Softmax"),
    "sigmoid-head": _probability("Sigmoid"),
    "heads": heads,
    "sigmoid-negative": sigmoid_negative,
    "flat-output": flat_output,
    "cell-output": cell_output,
    "mask-output": mask_output,
    "ensemble": ensemble,
    "dead-end": dead_end,
    "zero-path": zero_path,
    "pyramid": pyramid,
    "attention": attention,
    "dice": dice,
}


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
