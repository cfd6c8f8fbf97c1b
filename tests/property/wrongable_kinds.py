"""The kinds of networks on which a heatmap can go wrong: one builder per kind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
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
    shifted,
    tiles_reshape,
    tiles_slices,
    transposed,
)


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
    "shifted": _moved(shifted),
}
