"""Operators that a runtime lacks: what a heatmap's own nodes avoid, and what remains.

Read from the runtimes' own lists: ``webgpu-operators.md`` in the package onnxruntime-web 1.30,
``mobile_package.required_operators.config`` of ONNX Runtime's last reduced mobile package,
``supported_ops.md`` of OpenVINO's ONNX frontend, ``operators.md`` of onnx-tensorrt, TensorRT's
parser.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from inspector.surgery.embedded import HEATMAP
from inspector.surgery.gradient.builder import ADDED

__all__ = ["RUNTIMES", "Runtime", "left_over"]


@dataclass(frozen=True)
class Runtime:
    """What one runtime does not have of what gradients are written in.

    Attributes:
        name: As a reader knows it.
        lacks: Operators that it does not run.
        wrong: Operators that it has, and runs wrongly behind or before some other one.
        note: What happens to an operator that it lacks.
        feeds_defaults: Whether it can be fed an input that has a value of its own; for others such
            an input is a constant.
    """

    name: str
    lacks: Sequence[str]
    wrong: Sequence[str] = ()
    note: str = ""
    feeds_defaults: bool = True

    @property
    def avoided(self) -> tuple[str, ...]:
        """What the nodes of a heatmap are not written with."""
        return (*self.lacks, *self.wrong)


RUNTIMES: Mapping[str, Runtime] = {
    "web": Runtime(
        "onnxruntime-web on WebGPU",
        (
            *("ScatterElements", "OneHot", "TopK", "Max", "Min", "And", "Or", "Sign", "Sum"),
            *("ConstantOfShape", "Identity", "Round", "ReverseSequence", "Softplus", "Trilu"),
            *("RotaryEmbedding", "Scan"),
        ),
        note="it runs them on the processor, and copies their tensors back and forth",
        feeds_defaults=False,
    ),
    "mobile": Runtime(
        "ONNX Runtime's reduced mobile package",
        (
            *("ScatterElements", "GatherElements", "Sign", "Einsum", "Trilu", "RotaryEmbedding"),
            *("Cosh", "Sinh", "Softplus", "OneHot"),
        ),
        note="the whole onnxruntime package for Android and iOS has them",
    ),
    # OpenVINO 2026.4 multiplies wrongly behind a matrix product with a Relu.
    "openvino": Runtime(
        "OpenVINO",
        ("LpPool", "MaxUnpool", "DeformConv", "Det"),
        ("Relu",),
        feeds_defaults=False,
    ),
    "tensorrt": Runtime(
        "TensorRT",
        (
            *("ScatterElements", "ScatterND", "Reciprocal", "Mod", "OneHot", "NonZero", "Unique"),
            *("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QLinearConv"),
            *("QLinearMatMul", "Compress", "Det", "MaxRoiPool", "MaxUnpool", "Trilu"),
            "RotaryEmbedding",
        ),
        note="its parser refuses a file with them, and does not add up in a scatter",
    ),
}
"""Runtimes by the name that ``--for`` takes."""


def left_over(model: onnx.ModelProto, runtime: str) -> tuple[str, ...]:
    """Operators of a file that a runtime lacks, with how many nodes of the model have each.

    Args:
        model: A file with a heatmap.
        runtime: A key of ``RUNTIMES``; empty for none.
    """
    if not runtime:
        return ()
    lacks, counts = set(RUNTIMES[runtime].lacks), dict[str, int]()
    for node in model.graph.node:
        if node.op_type in lacks:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    own = {
        node.op_type
        for node in model.graph.node
        if node.output[0].startswith(ADDED) or node.output[0] == HEATMAP
    }
    return tuple(
        f"{op_type} ({count}, {'of the heatmap' if op_type in own else 'of the network'})"
        for op_type, count in sorted(counts.items())
    )
