"""ONNX values as torch tensors: element types, and arrays that share their memory."""

import warnings
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

__all__ = ["NARROW", "TORCH_TYPES", "CannotBind", "as_array", "as_tensor", "elements"]

NARROW = {torch.float16, torch.bfloat16, torch.float32}
"""Types that a program computes in its own precision."""


class CannotBind(Exception):
    """Why one node cannot be run."""


TORCH_TYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.UINT16: torch.uint16,
    onnx.TensorProto.UINT32: torch.uint32,
    onnx.TensorProto.UINT64: torch.uint64,
    onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.COMPLEX64: torch.complex64,
    onnx.TensorProto.COMPLEX128: torch.complex128,
    onnx.TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    onnx.TensorProto.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    onnx.TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    onnx.TensorProto.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
}


def as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """Share an array's memory with a tensor, types that numpy borrows from ml_dtypes included."""
    borrowed = {
        "bfloat16": (np.int16, torch.bfloat16),
        "float8_e4m3fn": (np.uint8, torch.float8_e4m3fn),
        "float8_e4m3fnuz": (np.uint8, torch.float8_e4m3fnuz),
        "float8_e5m2": (np.uint8, torch.float8_e5m2),
        "float8_e5m2fnuz": (np.uint8, torch.float8_e5m2fnuz),
    }
    if array.dtype.name in borrowed:
        plain, dtype = borrowed[array.dtype.name]
        return as_tensor(array.view(plain)).view(dtype)
    if array.dtype.name in {"int4", "uint4", "int2", "uint2"}:
        array = array.astype(np.int8 if array.dtype.name.startswith("i") else np.uint8)
    if array.dtype.byteorder == ">" or array.dtype.kind not in "biufc":
        raise CannotBind(f"constants of type {array.dtype}")
    with warnings.catch_warnings():
        # The array is a read-only view of the file's bytes; nothing here writes into it.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def elements(value: Any) -> int:
    """Number of elements of a tensor, or of all tensors of a sequence."""
    return sum(map(elements, value)) if isinstance(value, list) else int(value.numel())


def as_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor as an array; the types of 8 bits and fewer that NumPy lacks as float32."""
    tensor = tensor.detach().cpu()
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.float().numpy()
