"""What several conformance tests compare with: native networks, and every tensor of a file."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from inspector.evidence import Evidence, tensors_for
from inspector.explain import Explainer
from inspector.methods import parse_request
from inspector.photos.photo import Photo, load_photo
from inspector.photos.preprocess_choice import Preprocess
from inspector.target import Target

onnxruntime.set_default_logger_severity(4)

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_models"
SHARED = ROOT.parent / "shared"
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Pair:
    """One network, native and as an ONNX file, and an input for it (1, 3, H, W)."""

    name: str
    network: nn.Module
    path: Path
    input: torch.Tensor


def imported(name: str) -> Any:
    """A script of ``sample_models`` as a module."""
    if str(SAMPLES) not in sys.path:
        sys.path.append(str(SAMPLES))
    return importlib.import_module(name)


def prepared(model: Explainer, photo: Any) -> np.ndarray[Any, Any]:
    """A photo (a path, or what ``Photo.of`` takes) as the model's input, (1, C, H, W)."""
    source = load_photo(photo) if isinstance(photo, Path) else Photo.of(photo)
    return model.preprocessing.preprocess.apply(source)[0][None]


def evidence_of(
    model: Explainer,
    images: np.ndarray[Any, Any],
    target: int,
    *,
    layer: str | None = None,
    methods: Sequence[str] = ("grad-cam",),
    preprocess: Preprocess | None = None,
) -> Evidence:
    """What ``explain`` hands to a method, for inputs that were never a photo."""
    scores = model.scores.tensor
    index = (*(slice(None) for _ in range(model.scores.axis - 1)), target)
    needs = {need for name in methods for need in parse_request(name).method.needs}
    fetch = tensors_for(model.model, needs, layer, [scores])
    values = model.forward(images, fetch)
    return Evidence(
        model.model,
        images,
        [Target(scores, index, f"class {target}", target)],
        values,
        layer=layer,
        preprocess=preprocess or model.preprocessing.preprocess,
    )


def runtime_tensors(
    proto: onnx.ModelProto | Path, feeds: Mapping[str, np.ndarray[Any, Any]]
) -> Arrays:
    """Every tensor that ONNX Runtime computes, nothing fused: the reference of a comparison."""
    if isinstance(proto, Path):
        proto = onnx.load_model(proto)
    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    known = {value.name for value in exposed.graph.output}
    exposed.graph.output.extend(
        onnx.ValueInfoProto(name=name)
        for node in exposed.graph.node
        for name in node.output
        if name and name not in known
    )
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        exposed.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def widened(proto):
    """A float16 model with every tensor, constant, cast and declaration in float32."""
    wide = onnx.ModelProto()
    wide.CopyFrom(proto)

    def tensor(t):
        if t.data_type == TensorProto.FLOAT16:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float32), t.name))

    for t in wide.graph.initializer:
        tensor(t)
    for value in (*wide.graph.input, *wide.graph.output, *wide.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in wide.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                tensor(attribute.t)
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    return wide
