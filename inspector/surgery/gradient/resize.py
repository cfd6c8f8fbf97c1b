"""Signals of resampling: along each axis the transpose of the matrix that resampled it.

The matrix is what ONNX Runtime itself makes of the unit vectors, so every mode of the operator is
covered, with the runtime's own coefficients.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper

from converters.graph import Node
from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__: list[str] = []

Array = np.ndarray[Any, Any]


@RULES.register("Resize", since=10)
@RULES.register("Upsample")
def resize(b: Builder, step: Step) -> Mapping[int, str]:
    """Every output's signal to the pixels it was made of, by their weights."""
    dims, out = b.dims(step.input(0)), b.dims(step.node.outputs[0])
    node, signal = step.node, step.signal
    repeats = [
        o // n if n and o % n == 0 and _repeats(b, step, axis, n, o) else 0
        for axis, (n, o) in enumerate(zip(dims, out, strict=True))
    ]
    space = range(2, len(dims))
    if all(repeats) and list(out[:2]) == list(dims[:2]):
        # Pixels that were repeated: the sum of each block.
        kernel = [repeats[axis] for axis in space]
        means = b.op("AveragePool", [signal], kernel_shape=kernel, strides=kernel)
        return {0: b.scaled(means, float(np.prod(kernel)))}
    for axis, (before, after) in enumerate(zip(dims, out, strict=True)):
        if before != after or _moves(node):
            matrix = _matrix(b, step, axis, before, after)
            if np.array_equal(matrix, np.eye(before, after)):
                continue
            if axis == 0:
                raise CannotDifferentiate("it resizes the axis of samples")
            signal = b.along(signal, axis, np.ascontiguousarray(matrix.T), len(dims))
    return {0: signal}


def _moves(node: Node) -> bool:
    return node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"


def _repeats(b: Builder, step: Step, axis: int, before: int, after: int) -> bool:
    """Whether an axis is resampled by repeating each pixel."""
    if _moves(step.node):
        return False
    if before == after:
        return True
    if step.node.attributes.get("mode", "nearest") != "nearest":
        return False
    matrix = _matrix(b, step, axis, before, after)
    return np.array_equal(matrix, np.repeat(np.eye(before), after // before, axis=1))


def _matrix(b: Builder, step: Step, axis: int, before: int, after: int) -> Array:
    """What the node makes of each unit vector along one axis, (before, after)."""
    import onnxruntime

    node, rank = step.node, len(b.dims(step.input(0)))
    attributes = {k: v for k, v in node.attributes.items() if k not in {"scales", "axes"}}
    attributes.pop("keep_aspect_ratio_policy", None)
    inputs, constants = ["x"], {}
    positions = {"roi": 1, "scales": 2, "sizes": 3} if b.opset >= 11 else {"scales": 1}
    listed = node.attributes.get("axes")
    order = [int(a) % rank for a in listed] if listed else list(range(rank))
    place = order.index(axis) if axis in order else -1
    given = {name: step.input(at) for name, at in positions.items()}
    sizes = b.known(given["sizes"]) if given.get("sizes") else None
    roi = b.graph.constant(given["roi"]) if given.get("roi") else None
    if node.op_type == "Resize" and b.opset >= 11:
        if roi is not None and roi.size and place >= 0:
            constants["roi"] = np.array(
                [0, roi[place], 1, roi[place + len(order)]], dtype=np.float32
            )
        else:
            constants["roi"] = np.zeros(0, np.float32)
        inputs.append("roi")
    if sizes is not None and sizes.size and place >= 0:
        constants |= {"scales": np.zeros(0, np.float32)}
        constants["sizes"] = np.array([before, after], np.int64)
        inputs += ["scales", "sizes"]
    else:
        scales = _scales(b, step, given.get("scales", ""))
        factor = float(scales[place]) if scales is not None and place >= 0 else after / before
        constants["scales"] = np.array([1.0, factor], np.float32)
        if node.op_type == "Upsample" and b.opset < 9:
            attributes["scales"] = [1.0, factor]
            constants.pop("scales")
        else:
            inputs.append("scales")
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [before, before])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [helper.make_node(node.op_type, inputs, ["y"], **attributes)],
        "resize",
        [value],
        [result],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", b.opset)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        found: Array = session.run(None, {"x": np.eye(before, dtype=np.float32)})[0]
    except Exception as error:
        raise CannotDifferentiate("its mode is not resampled axis by axis") from error
    if found.shape != (before, after):
        raise CannotDifferentiate("the size that its scale gives is not the measured one")
    return found


def _scales(b: Builder, step: Step, name: str) -> Array | None:
    if not name:
        given = step.node.attributes.get("scales")
        return None if given is None else np.asarray(given, np.float32)
    found = b.graph.constant(name)
    return found if found is not None and found.size else None
