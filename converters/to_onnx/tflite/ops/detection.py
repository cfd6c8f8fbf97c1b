"""The end of detectors: boxes decoded from anchors, and suppressed."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from converters.errors import ConversionFailed
from converters.to_onnx.tflite.graph import Graph, carried_type
from converters.to_onnx.tflite.model import Operator, Tensor
from converters.to_onnx.tflite.optable import OPS

__all__: list[str] = []

_MOST_DETECTIONS = 10_000


@OPS.register("TFLite_Detection_PostProcess")
def detection_post_process(
    graph: Graph,
    encodings: Tensor,
    scores: Tensor,
    anchors: Tensor,
    *,
    operator: Operator,
    outputs: list[Tensor],
) -> None:
    """Write SSD's end: boxes, classes, scores and their number, as lists filled up with zeros.

    Source: ``tensorflow/lite/kernels/detection_postprocess.cc``. Without ``use_regular_nms`` every
    anchor has its best class alone, and boxes of all classes suppress one another.
    """
    known = _Options(operator.custom_options)
    count, hint = len(graph.array(anchors)), outputs[0].name
    if encodings.shape[:1] != (1,) or len(scores.shape) != 3 or encodings.shape[1] != count:
        raise ConversionFailed(f"boxes of {list(encodings.shape)} for {count} anchors")
    boxes = _decoded(graph, encodings, graph.array(anchors), known, hint)
    # The first class of all is the background, where there is one more than the options say.
    background = scores.shape[2] - known.classes
    if not 0 <= background <= 1:
        raise ConversionFailed(f"{scores.shape[2]} scores of {known.classes} classes")
    table = _part(graph, graph.last(scores), (background, scores.shape[2]), 2, f"{hint}_scores")
    if known.regular:
        kept, classes, values = _per_class(graph, boxes, table, known, hint)
    else:
        kept, classes, values = _together(graph, boxes, table, known, hint)
    flat = graph.emit("Squeeze", [boxes, graph.integers([0], f"{hint}_first")], f"{hint}_flat")
    chosen = graph.emit("Gather", [flat, kept], f"{hint}_chosen", axis=0)
    number = graph.emit("Shape", [kept], f"{hint}_count")
    lists = ((chosen, (1, known.most, 4)), (classes, (1, known.most)), (values, (1, known.most)))
    for out, (name, shape) in zip(outputs, lists, strict=False):
        zeros = graph.store(np.zeros(shape[1:], np.float32), f"{out.name}_zeros")
        filled = graph.emit("Concat", [name, zeros], f"{out.name}_filled", axis=0)
        listed = _part(graph, filled, (0, known.most), 0, f"{out.name}_list")
        target = graph.integers(shape, f"{out.name}_shape")
        graph.give(out, graph.emit("Reshape", [listed, target], out.name))
    if len(outputs) > 3:
        name = graph.emit("Cast", [number], outputs[3].name, to=TensorProto.FLOAT)
        graph.give(outputs[3], name)


@OPS.register("NON_MAX_SUPPRESSION_V4")
def non_max_suppression_v4(  # noqa: PLR0917 - the operator's inputs
    graph: Graph,
    boxes: Tensor,
    scores: Tensor,
    most: Tensor,
    overlap: Tensor,
    least: Tensor,
    *,
    outputs: list[Tensor],
) -> None:
    """Write places of the boxes that are kept, filled up with zeros, and their number."""
    kept, _ = _kept_boxes(graph, boxes, scores, (most, overlap, least), outputs[0].name)
    _give_filled(graph, outputs[0], kept, graph.whole_numbers(most)[0])
    _give_count(graph, outputs[1], kept)


@OPS.register("NON_MAX_SUPPRESSION_V5")
def non_max_suppression_v5(  # noqa: PLR0917 - the operator's inputs
    graph: Graph,
    boxes: Tensor,
    scores: Tensor,
    most: Tensor,
    overlap: Tensor,
    least: Tensor,
    sigma: Tensor,
    *,
    outputs: list[Tensor],
) -> None:
    """Write places and scores of the boxes that are kept, filled up with zeros, and their number.

    Boxes whose scores are lowered in the place of being suppressed (``sigma``) are not ONNX's.
    """
    if graph.array(sigma).any():
        raise ConversionFailed(
            "lowers the scores of boxes that overlap (soft suppression), which ONNX has not",
            hint="export the network with soft_nms_sigma=0, or without its last step",
        )
    kept, values = _kept_boxes(graph, boxes, scores, (most, overlap, least), outputs[0].name)
    count = graph.whole_numbers(most)[0]
    _give_filled(graph, outputs[0], kept, count)
    _give_filled(graph, outputs[1], values, count)
    _give_count(graph, outputs[2], kept)


def _kept_boxes(
    graph: Graph, boxes: Tensor, scores: Tensor, ends: tuple[Tensor, Tensor, Tensor], hint: str
) -> tuple[str, str]:
    """Write places and scores of the boxes that are kept, the best first.

    TFLite suppresses a box whose overlap equals the threshold; ONNX does not.
    """
    most = graph.whole_numbers(ends[0])
    overlap, least = (graph.array(end).ravel().astype(np.float32) for end in ends[1:])
    if not (len(most) == overlap.size == least.size == 1) or not 0 < most[0] <= _MOST_DETECTIONS:
        raise ConversionFailed(f"keeps {most} boxes")
    if boxes.shape[1:] != (4,) or len(scores.shape) != 1:
        raise ConversionFailed(f"boxes of {list(boxes.shape)}, scores of {list(scores.shape)}")
    below = np.nextafter(overlap, np.float32(-1))
    count = most[0] if below[0] >= 0 else 1  # at an overlap of 0, the best box suppresses all
    limits = [
        graph.integers([count], f"{hint}_most"),
        graph.store(np.clip(below, 0, 1), f"{hint}_overlap"),
        graph.store(least, f"{hint}_least"),
    ]
    table = graph.emit(
        "Unsqueeze", [graph.last(boxes), graph.integers([0], f"{hint}_sample")], f"{hint}_boxes"
    )
    axes = graph.integers([0, 1], f"{hint}_axes")
    rows = graph.emit("Unsqueeze", [graph.last(scores), axes], f"{hint}_rows")
    found = graph.emit("NonMaxSuppression", [table, rows, *limits], f"{hint}_selected")
    kept = _column(graph, found, 2, hint)
    values = graph.emit("Gather", [graph.last(scores), kept], f"{hint}_scores", axis=0)
    return kept, values


def _give_filled(graph: Graph, out: Tensor, name: str, count: int) -> None:
    """Give an output a list, filled up with zeros."""
    to = carried_type(out)
    name = graph.emit("Cast", [name], f"{out.name}_found", to=to)
    zeros = graph.store(np.zeros(count, helper.tensor_dtype_to_np_dtype(to)), f"{out.name}_zeros")
    name = graph.emit("Concat", [name, zeros], f"{out.name}_filled", axis=0)
    graph.give(out, _part(graph, name, (0, count), 0, out.name))


def _give_count(graph: Graph, out: Tensor, name: str) -> None:
    """Give an output the length of a list."""
    size = graph.emit("Size", [name], f"{out.name}_size")
    graph.give(out, graph.emit("Cast", [size], out.name, to=carried_type(out)))


class _Options:
    """Options of the operator, which are a flexbuffer.

    Attributes:
        scales: Divisors of y, x, height and width.
        most: Detections in all.
        per_class: Detections per class, of ``regular``.
        classes: How many, without the background.
        regular: Whether classes are suppressed one by one.
        least: Smallest score.
        overlap: IoU above which a box is suppressed.
    """

    def __init__(self, data: bytes) -> None:
        """Read them.

        Raises:
            ConversionFailed: They are not a flexbuffer of this operator.
        """
        from flatbuffers import flexbuffers

        try:
            found: dict[str, Any] = flexbuffers.Loads(data)
            self.scales = [float(found[f"{n}_scale"]) for n in "yxhw"]
            self.most = int(found["max_detections"])
            self.per_class = int(found.get("detections_per_class", 100))
            self.classes = int(found["num_classes"])
            self.regular = bool(found.get("use_regular_nms", False))
            self.least = float(found["nms_score_threshold"])
            self.overlap = float(found["nms_iou_threshold"])
        except Exception as error:  # noqa: BLE001 - a stranger's offsets lead anywhere
            raise ConversionFailed(f"its options cannot be read ({error!r:.80})") from None
        sizes = (self.most, self.per_class, self.classes)
        if not all(0 < n <= _MOST_DETECTIONS for n in sizes) or not all(self.scales):
            raise ConversionFailed(f"{self.most} detections of {self.classes} classes")


def _decoded(
    graph: Graph, encodings: Tensor, anchors: np.ndarray, known: _Options, hint: str
) -> str:
    """Write boxes (1, N, 4) of upper, left, lower and right edges."""
    scales = np.array(known.scales, np.float32)
    centre, size = anchors[:, :2], anchors[:, 2:4]
    rank = len(encodings.shape)
    name = _part(graph, graph.last(encodings), (0, 4), rank - 1, f"{hint}_encodings")
    divided = graph.emit("Div", [name, graph.store(scales, f"{hint}_scales")], f"{hint}_divided")
    place, extent = graph.emit_many(
        "Split", [divided], [f"{hint}_place", f"{hint}_extent"], axis=2, num_outputs=2
    )
    sizes = graph.store(size[None], f"{hint}_anchor_sizes")
    place = graph.emit("Mul", [place, sizes], f"{hint}_moved")
    centres = graph.store(centre[None], f"{hint}_anchor_centres")
    place = graph.emit("Add", [place, centres], f"{hint}_centres")
    extent = graph.emit("Exp", [extent], f"{hint}_growth")
    half = graph.store(size[None] / 2, f"{hint}_anchor_halves")
    extent = graph.emit("Mul", [extent, half], f"{hint}_halves")
    low = graph.emit("Sub", [place, extent], f"{hint}_low")
    high = graph.emit("Add", [place, extent], f"{hint}_high")
    return graph.emit("Concat", [low, high], f"{hint}_boxes", axis=2)


def _together(
    graph: Graph, boxes: str, table: str, known: _Options, hint: str
) -> tuple[str, str, str]:
    """Write what is kept where boxes of all classes suppress one another."""
    axes = graph.integers([2], f"{hint}_classes_axis")
    best = graph.emit("ReduceMax", [table, axes], f"{hint}_best", keepdims=0)
    rows = graph.emit("Unsqueeze", [best, graph.integers([1], f"{hint}_one")], f"{hint}_rows")
    kept = _suppressed(graph, boxes, rows, known.most, known)
    places = _column(graph, kept, 2, hint)
    kinds = graph.emit("ArgMax", [table], f"{hint}_kinds", axis=2, keepdims=0)
    found = []
    for name, word in ((kinds, "class"), (best, "score")):
        flat = graph.emit("Squeeze", [name, graph.integers([0], f"{hint}_0")], f"{hint}_{word}es")
        found.append(graph.emit("Gather", [flat, places], f"{hint}_kept_{word}", axis=0))
    classes = graph.emit("Cast", [found[0]], f"{hint}_kept_classes", to=TensorProto.FLOAT)
    return places, classes, found[1]


def _per_class(
    graph: Graph, boxes: str, table: str, known: _Options, hint: str
) -> tuple[str, str, str]:
    """Write what is kept where classes are suppressed one by one, the best of all first."""
    rows = graph.emit("Transpose", [table], f"{hint}_rows", perm=[0, 2, 1])
    kept = _suppressed(graph, boxes, rows, known.per_class, known)
    values = graph.emit("GatherND", [rows, kept], f"{hint}_values")
    size = graph.emit("Shape", [values], f"{hint}_found")
    most = graph.emit("Min", [size, graph.integers([known.most], f"{hint}_most")], f"{hint}_k")
    best, order = graph.emit_many(
        "TopK", [values, most], [f"{hint}_kept_score", f"{hint}_order"], axis=0
    )
    picked = [
        graph.emit("Gather", [_column(graph, kept, n, hint), order], f"{hint}_kept_{n}", axis=0)
        for n in (1, 2)
    ]
    classes = graph.emit("Cast", [picked[0]], f"{hint}_kept_classes", to=TensorProto.FLOAT)
    return picked[1], classes, best


def _suppressed(graph: Graph, boxes: str, rows: str, count: int, known: _Options) -> str:
    """Write (K, 3): sample, class and place of what is kept."""
    hint = f"{boxes}_kept"
    ends = [
        graph.integers([count], f"{hint}_count_per_class"),
        graph.store(np.array([known.overlap], np.float32), f"{hint}_overlap"),
        # TFLite keeps what equals the threshold.
        graph.store(
            np.nextafter(np.array([known.least], np.float32), np.float32(-1)), f"{hint}_least"
        ),
    ]
    return graph.emit("NonMaxSuppression", [boxes, rows, *ends], f"{hint}_selected")


def _column(graph: Graph, table: str, index: int, hint: str) -> str:
    place = graph.store(np.array(index, np.int64), f"{hint}_column")
    return graph.emit("Gather", [table, place], f"{hint}_column_{index}", axis=1)


def _part(graph: Graph, name: str, ends: tuple[int, int], axis: int, hint: str) -> str:
    cut = [graph.integers([n], f"{hint}_cut") for n in (*ends, axis)]
    return graph.emit("Slice", [name, *cut], hint)
