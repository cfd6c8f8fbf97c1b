"""Operators without a schema, against ONNX Runtime, which still runs them."""

import numpy as np
import onnxruntime
import pytest
import torch
from networks import onnx_model
from onnx import helper

from converters.to_torch.program import Program

CASES = [
    ("Affine", {"alpha": 0.5, "beta": -2.0}),
    ("ImageScaler", {"bias": [1.0, -2.0, 3.5], "scale": 0.25}),
    ("Crop", {"border": [1, 2, 3, 0]}),
    ("Crop", {"border": [1, 2, 0, 0], "scale": [3, 4]}),
    ("ScaledTanh", {"alpha": 1.5, "beta": 0.3}),
    ("ParametricSoftplus", {"alpha": 1.5, "beta": 0.3}),
]


@pytest.mark.parametrize(("op_type", "attributes"), CASES)
def test_experimental_operator_equals_ort(op_type, attributes):
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 7)).astype(np.float32)
    model = onnx_model(
        [helper.make_node(op_type, ["x"], ["y"], **attributes)],
        {"x": x.shape},
        {"y": None},
        opset=7,
        ir_version=3,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (wanted,) = session.run(None, {"x": x})
    found = Program(model).run({"x": torch.from_numpy(x)}, ["y"])["y"]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-6, strict=True)
