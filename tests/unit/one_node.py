"""One-node models: what ONNX Runtime says about an operator, and what the twin says."""

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper

from converters.to_torch.program import Program

onnxruntime.set_default_logger_severity(4)


def model_of(op_type, inputs, *, opset=17, outputs=1, domain="", output_type=None, **attributes):
    """A model of one node; ``None`` in ``inputs`` is an input left out."""
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, results, domain=domain, **attributes)
    declared = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype), np.shape(value)
        )
        for name, value in zip(names, inputs, strict=True)
        if name
    ]
    graph = helper.make_graph(
        [node], "one", declared, [onnx.ValueInfoProto(name=r) for r in results]
    )
    if output_type is not None:
        graph.output[0].CopyFrom(helper.make_tensor_value_info("y0", output_type, None))
    imports = [helper.make_opsetid("", opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=imports, ir_version=8 if opset < 21 else 10)


def feeds_of(inputs):
    """Feeds of ``model_of``."""
    return {f"x{i}": np.asarray(v) for i, v in enumerate(inputs) if v is not None}


def ort(op_type, inputs, **options):
    """Outputs of ONNX Runtime without optimisations."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model_of(op_type, inputs, **options).SerializeToString(),
        settings,
        providers=["CPUExecutionProvider"],
    )
    return session.run(None, feeds_of(inputs))


def twin(op_type, inputs, **options):
    """Outputs of the twin."""
    model = model_of(op_type, inputs, **options)
    names = [value.name for value in model.graph.output]
    feeds = {name: torch.from_numpy(value.copy()) for name, value in feeds_of(inputs).items()}
    found = Program(model).run(feeds, names)
    return [found[name].numpy() for name in names]


def assert_same(op_type, inputs, *, tolerance=1e-5, **options):
    """The twin gives what ONNX Runtime gives, to ``tolerance`` of the output's peak."""
    expected, found = ort(op_type, inputs, **options), twin(op_type, inputs, **options)
    for want, got in zip(expected, found, strict=True):
        assert got.shape == want.shape
        peak = max(1.0, float(np.abs(want.astype(np.float64)).max(initial=0)))
        np.testing.assert_allclose(
            got.astype(np.float64), want.astype(np.float64), rtol=0, atol=tolerance * peak
        )
    return expected
