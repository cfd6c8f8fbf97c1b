"""A float16 copy of a file, by ONNX Runtime's own converter."""

from pathlib import Path

import onnx

from converters.onnx_file import OnnxFile
from inspector.errors import ModelRefused
from inspector.whole_file import write_whole

__all__ = ["write_half"]


def write_half(file: OnnxFile, path: Path) -> Path:
    """Write a copy whose weights and inner tensors are float16; its inputs and outputs stay.

    Args:
        file: The model, which is left as it is.
        path: Where the copy is written.

    Returns:
        The path.

    Raises:
        ModelRefused: The model cannot be converted.
    """
    where = file.path.name
    if file.external:
        raise ModelRefused(
            "its weights lie in files of their own, which are not converted to float16 here",
            where=where,
            hint="convert it yourself, and name both files: inspector compare A B IMAGE...",
        )
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    try:
        # Its inference of shapes is native code, which strangers' files are kept from.
        found = convert_float_to_float16(model, keep_io_types=True, disable_shape_infer=True)
    except Exception as error:
        raise ModelRefused(
            f"cannot be converted to float16 ({type(error).__name__}: {str(error)[:200]})",
            where=where,
        ) from error
    write_whole(path, found.SerializeToString())
    return path
