"""A small network for the tests of the certificate, right and spoilt."""

import functools

import numpy as np
import onnx
from networks import onnx_model
from onnx import TensorProto, helper

from converters.to_torch.optable import OPS, OpTable
from inspector.engines.twin import TwinEngine
from inspector.explain import load
from inspector.verify.checks import certify


def network(kind="float32"):
    """conv - batch norm - leaky - pool - conv - relu - residual add - mean - linear."""
    rng = np.random.default_rng(3)
    constants = {
        "w1": rng.standard_normal((6, 3, 3, 3)) / 4,
        "w2": rng.standard_normal((6, 6, 3, 3)) / 6,
        "scale": rng.uniform(0.5, 1.5, 6),
        "shift": rng.standard_normal(6),
        "mean": rng.standard_normal(6),
        "var": rng.uniform(0.01, 0.2, 6),
        "head": rng.standard_normal((6, 5)),
        "bias": rng.standard_normal(5),
    }
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", **same),
        helper.make_node(
            "BatchNormalization",
            ["c1", "scale", "shift", "mean", "var"],
            ["b1"],
            "norm",
            epsilon=1e-3,
        ),
        helper.make_node("LeakyRelu", ["b1"], ["a1"], "leaky", alpha=0.1),
        helper.make_node("MaxPool", ["a1"], ["p1"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], "conv2", **same),
        helper.make_node("Relu", ["c2"], ["a2"], "relu"),
        helper.make_node("Add", ["a2", "p1"], ["r"], "residual"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "head", "bias"], ["y"], "linear"),
    ]
    if kind == "uint8":
        nodes.insert(0, helper.make_node("Cast", ["image"], ["x"], "cast", to=TensorProto.FLOAT))
    dtype = np.float16 if kind == "float16" else np.float32
    types = {"uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16}
    name = "image" if kind == "uint8" else "x"
    return onnx_model(
        nodes,
        [helper.make_tensor_value_info(name, types.get(kind, TensorProto.FLOAT), ["n", 3, 16, 16])],
        [
            helper.make_tensor_value_info(
                "y", types["float16"] if kind == "float16" else TensorProto.FLOAT, ["n", 5]
            )
        ],
        {k: v.astype(dtype) for k, v in constants.items()},
        opset=17,
    )


def opener(folder):
    """What saves a network in a folder, the plain one when none is given, and opens it."""

    def opened(proto=None, name="model.onnx", **options):
        path = folder / name
        onnx.save(proto or network(), path)
        return load(path, device="cpu", preprocess="imagenet", **options).model

    return opened


def recipe(model):
    return load(model.path, device="cpu", preprocess="imagenet").preprocessing.preprocess


def full(model, photos=()):
    return certify(model, photos, preprocess=recipe(model))


def spoilt(model, op_type, wrap):
    """The model with a twin in which one operator is another function."""
    table = OpTable(OPS)
    for domain, known, since, op in OPS:
        if known == op_type and domain == "":
            table.register(op_type, since=since)(functools.wraps(op.function)(wrap(op.function)))
    model.twin_engine = TwinEngine(model.graph, table=table)
    return model


def slope(function):
    return lambda X, *, alpha=0.01: function(X, alpha=alpha + 0.01)
