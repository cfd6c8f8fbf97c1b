"""Inputs of a model: some of them bound to constants, a missing axis of samples put in front."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.graph import DEFAULT_DOMAINS
from converters.onnx_file import OnnxFile

__all__ = ["bind_inputs", "with_sample_axis"]

_APART = 4
"""Version of the file format from which initialisers need not be inputs too."""

_AXES_ARE_AN_INPUT = 13
"""Opset from which ``Squeeze`` takes its axes as an input."""


def bind_inputs(file: OnnxFile, values: Mapping[str, np.ndarray[Any, Any]]) -> OnnxFile:
    """A model in which inputs are constants; every other part of it stays.

    Args:
        file: The model, which is left as it is.
        values: Arrays by the name of the input, in the type and of the rank that it declares.

    Returns:
        The same file with another ``model``: its hash is still that of the bytes that were read.
    """
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    graph = model.graph
    for name, value in values.items():
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    kept = []
    for declared in graph.input:
        if declared.name not in values:
            kept.append(declared)
        elif model.ir_version < _APART:
            kind, shape = declared.type.tensor_type.elem_type, values[declared.name].shape
            kept.append(helper.make_tensor_value_info(declared.name, kind, shape))
    kept = [onnx.ValueInfoProto.FromString(one.SerializeToString()) for one in kept]
    del graph.input[:]
    graph.input.extend(kept)
    return replace(file, model=model)


def with_sample_axis(file: OnnxFile, name: str) -> OnnxFile:
    """A model that takes one image as (1, C, H, W) where its file takes (C, H, W).

    Args:
        file: The model, which is left as it is.
        name: The input. The model's own nodes go on reading it; what is fed is ``NAME[None]``.
    """
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    graph = model.graph
    declared = next(value for value in graph.input if value.name == name)
    sizes = [dim.dim_value or dim.dim_param or None for dim in declared.type.tensor_type.shape.dim]
    outer, kind = f"{name}[None]", declared.type.tensor_type.elem_type
    declared.CopyFrom(helper.make_tensor_value_info(outer, kind, [1, *sizes]))
    opset = next((o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS), 1)
    if opset < _AXES_ARE_AN_INPUT:
        squeeze = helper.make_node("Squeeze", [outer], [name], name=outer, axes=[0])
    else:
        graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), f"{outer}.axes"))
        squeeze = helper.make_node("Squeeze", [outer, f"{outer}.axes"], [name], name=outer)
    graph.node.insert(0, squeeze)
    return replace(file, model=model)
