"""Every TFLite operator that networks for images use: our reader against TFLite's interpreter."""

import importlib.util

import numpy as np
import onnxruntime
import pytest

MISSING = [
    name
    for name in ("ai_edge_litert", "tflite", "flatbuffers")
    if importlib.util.find_spec(name) is None
]
if MISSING:
    pytest.skip(f"not installed: {', '.join(MISSING)}", allow_module_level=True)

import tflite_cases  # noqa: E402 - it needs the schema

from converters.to_onnx.tflite.model import read_model  # noqa: E402 - as above
from converters.to_onnx.tflite.writer import write_onnx  # noqa: E402 - as above

pytestmark = pytest.mark.converters

FLOAT = 1e-5
LEVELS = {"int8": 1.01, "uint8": 1.01, "int16": 1.01}
TABLES = {"TANH": 3.1, "SOFTMAX": 3.1}
"""Levels of 16 bits that the interpreter's tables of a function are off."""


def interpreted(data, feeds):
    """Outputs by each kind of kernels that there is, as numbers, with the steps of integers."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from converters.to_onnx.tflite.interpreter import _decoded, _encoded

    found = []
    for kind in (OpResolverType.BUILTIN_REF, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        try:
            loaded = Interpreter(model_content=data, experimental_op_resolver_type=kind)
            loaded.allocate_tensors()
        except (ValueError, RuntimeError):
            continue
        for detail, (_, array) in zip(loaded.get_input_details(), feeds, strict=True):
            loaded.set_tensor(detail["index"], _encoded(array, detail))
        loaded.invoke()
        details = loaded.get_output_details()
        found.append(
            [(_decoded(loaded.get_tensor(d["index"]), d), d["quantization"][0]) for d in details]
        )
    assert found, "the interpreter has no kernel for it"
    return found


def converted(data, feeds):
    """Outputs of the ONNX file."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    made = write_onnx(read_model(data)).SerializeToString()
    session = onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def difference(got, expected, step):
    """Largest difference: in levels, relative to the peak of floats, or of integers as it is."""
    assert got.shape == expected.shape
    if not got.size:
        return 0.0
    unit = step or (np.abs(expected).max() or 1.0 if expected.dtype.kind == "f" else 1.0)
    return float(np.abs(got.astype(np.float64) - expected.astype(np.float64)).max() / unit)


@pytest.mark.parametrize("case", tflite_cases.CASES, ids=lambda case: case.name)
def test_an_operator_computes_what_the_interpreter_computes(case):
    """Floats, weights of 16 bits, int8 (per channel and per tensor), uint8 and 16x8."""
    data, feeds = tflite_cases.built(case, "", [()] * case.outputs, None)
    values = [value for value, _ in interpreted(data, feeds)[-1]]
    shapes = [value.shape for value in values]
    for kind, options in tflite_cases.variants(case):
        data, feeds = tflite_cases.built(case, kind, shapes, values, **options)
        got = converted(data, feeds)
        # Single kernels of the interpreter are wrong (its plain LRN, and its plain sum of int8):
        # what one of its two kinds says is right.
        worst = min(
            max(difference(a, *b) for a, b in zip(got, expected, strict=True))
            for expected in interpreted(data, feeds)
        )
        most = LEVELS.get(kind, FLOAT)
        most = TABLES.get(case.op_type, most) if kind == "int16" else most
        assert worst <= most, (case.name, kind, options)


def test_every_operator_is_tried():
    """What is left out has no place in a network for images, or is tried elsewhere."""
    from converters.to_onnx.tflite.optable import OPS

    elsewhere = {
        "DEQUANTIZE",  # weights of 16 bits, above
        "QUANTIZE",
        "DENSIFY",
        "Convolution2DTransposeBias",  # MediaPipe's own
        "FAKE_QUANT",
        "SHAPE",
        "RANK",
        "RANGE",
        "WHERE",
        "IF",  # test_tflite_bodies.py
        "WHILE",
    }
    assert set(OPS) == {case.op_type for case in tflite_cases.CASES} | elsewhere
