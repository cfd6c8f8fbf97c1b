"""Quantised versions of trained networks, and how alike their maps are to the float network's."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from references import SAMPLES

from converters.graph import Graph
from inspector.explain import Explainer, load

INPUT_METHODS = ("gradient", "guided-backprop", "deconvnet")
MAPS = ("grad-cam", "grad-cam++")
Array = np.ndarray[Any, Any]

CHANNELS = {
    "per_channel": True,
    "quant_format": QuantFormat.QDQ,
    "activation_type": QuantType.QUInt8,
    "weight_type": QuantType.QInt8,
}
"""Asymmetric activations, weights by channel; what the other settings start from."""

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "asymmetric": CHANNELS,
    "symmetric": CHANNELS
    | {"activation_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": True}},
    "QOperator": CHANNELS | {"quant_format": QuantFormat.QOperator},
    "int16": CHANNELS | {"activation_type": QuantType.QUInt16},
    "dedicated pairs": CHANNELS | {"extra_options": {"DedicatedQDQPair": True}},
    "moving average": CHANNELS | {"extra_options": {"CalibMovingAverage": True}},
}


def cifar() -> Array:
    """The 400 images of the sample, (400, 3, 32, 32), as the networks take them."""
    images = np.load(SAMPLES / "cifar10_sample.npz")["x"].astype(np.float32) / 255
    mean = np.array([0.4914, 0.4822, 0.4465], np.float32)
    deviation = np.array([0.2470, 0.2435, 0.2616], np.float32)
    return ((images - mean) / deviation).transpose(0, 3, 1, 2)


class Calibration(CalibrationDataReader):
    """Real images, ten at a time."""

    def __init__(self, images: Array, name: str) -> None:
        self.batches: Iterator[dict[str, Array]] = iter(
            [{name: images[i : i + 10]} for i in range(0, len(images), 10)]
        )

    def get_next(self) -> dict[str, Array] | None:
        return next(self.batches, None)


def quantised(source: Path, folder: Path, setting: str, images: Array, **changes: Any) -> Path:
    """A float model in one of the forms that ONNX Runtime's quantiser writes."""
    logging.disable(logging.WARNING)  # it advises what is done here
    try:
        ready = folder / f"{source.stem}.prepared.onnx"
        if not ready.exists():
            quant_pre_process(source, ready)
        if setting == "dynamic":
            path = folder / f"{source.stem}.dynamic.onnx"
            quantize_dynamic(ready, path, weight_type=QuantType.QUInt8)
            return path
        path = folder / f"{source.stem}.{setting.replace(' ', '-')}{len(changes)}.onnx"
        name = onnx.load_model(ready, load_external_data=False).graph.input[0].name
        options = {**SETTINGS[setting], **changes}
        quantize_static(ready, path, Calibration(images, name), **options)
    finally:
        logging.disable(logging.NOTSET)
    return path


def without_pairs(source: Path, path: Path) -> Path:
    """A model whose activations are floats again; its weights keep their rounding.

    A pair whose least level stands for 0 becomes a Relu (a Clip where its greatest stands for 6):
    on what is not negative that changes nothing.
    """
    model = onnx.load_model(source)
    graph = Graph(model)
    for proto in model.graph.node:
        if proto.op_type != "DequantizeLinear":
            continue
        maker = graph.producer(proto.input[0])
        while maker is not None and maker.is_op("Cast", "Identity"):
            maker = graph.producer(maker.inputs[0])
        if maker is None or maker.op_type != "QuantizeLinear":
            continue
        scale, zero = (graph.constant(name).reshape(()) for name in maker.inputs[1:3])
        limits = np.iinfo(zero.dtype)
        top = float(scale) * (limits.max - int(zero))
        del proto.input[:]
        del proto.attribute[:]
        proto.op_type = "Identity" if zero > limits.min else "Relu"
        proto.input.append(maker.inputs[0])
        if zero == limits.min and abs(top - 6) < 1e-3:
            proto.op_type = "Clip"
            proto.input.extend(["bound.0", "bound.6"])
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.float32(bound), f"bound.{bound}") for bound in (0, 6)
    )
    onnx.save(model, path)
    return path


def cosine(a: Array, b: Array) -> float:
    """Mean over the samples of the cosine; samples of which one has no map do not count."""
    one, other = (v.reshape(len(v), -1).astype(np.float64) for v in (a, b))
    sizes = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    known = sizes > 0
    assert known.mean() > 0.5
    return float(((one * other).sum(1)[known] / sizes[known]).mean())


def correlation(a: Array, b: Array) -> float:
    """Mean over the samples of Pearson's correlation."""
    return cosine(a - a.mean((-2, -1), keepdims=True), b - b.mean((-2, -1), keepdims=True))


def attributions(model: Explainer, images: Array, method: str, classes: Array) -> Array:
    """Maps of the given classes, those of one class in one batch."""
    order = np.argsort(classes, kind="stable")
    parts = [
        model.attribute(images[classes == k], method, target=str(k)) for k in np.unique(classes)
    ]
    found = np.concatenate(parts)
    return found[np.argsort(order, kind="stable")]


def top1(model: Explainer, images: Array) -> tuple[Array, Array]:
    """Most probable class of every image: by ONNX Runtime, by the twin."""
    tensor = model.scores.tensor
    step = 50
    rows: list[tuple[Array, Array]] = []
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        ran = np.asarray(model.forward(batch, [tensor])[tensor]).reshape(len(batch), -1)
        with torch.no_grad():
            program = model.model.twin_engine.program
            twin = program.run({model.input.name: torch.from_numpy(batch)}, [tensor])[tensor]
        rows.append((ran.argmax(1), twin.reshape(len(batch), -1).numpy().argmax(1)))
    first, second = zip(*rows, strict=True)
    return np.concatenate(first), np.concatenate(second)


def figures(
    source: Path,
    path: Path,
    images: Array,
    *,
    judged: Array | None = None,
    methods: Sequence[str] = (*INPUT_METHODS, *MAPS),
    preprocess: str | None = None,
) -> dict[str, float]:
    """How alike the maps of two models are, for the classes that the first one sees.

    Args:
        source: The float model.
        path: The quantised one.
        images: (N, 3, H, W).
        judged: Images to compare ONNX Runtime's and the twin's classes on; ``images`` if None.
        methods: What to compare.
        preprocess: Name of the preprocessing (maps do not depend on it).

    Returns:
        Mean cosine for input methods, mean correlation for maps, and the share of images whose
        class the twin and ONNX Runtime agree on.
    """
    whole = load(source, device="cpu", preprocess=preprocess)
    model = load(path, device="cpu", preprocess=preprocess)
    classes = np.asarray(whole.forward(images, [whole.scores.tensor])[whole.scores.tensor])
    classes = classes.reshape(len(images), -1).argmax(1)
    found = {}
    for method in methods:
        pair = [attributions(m, images, method, classes) for m in (whole, model)]
        found[method] = (correlation if method in MAPS else cosine)(*pair)
    runtime, twin = top1(model, images if judged is None else judged)
    return found | {"top-1": float((runtime == twin).mean())}
