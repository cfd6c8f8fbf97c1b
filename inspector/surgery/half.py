"""A float16 copy of a model, by ONNX Runtime's own converter."""

import onnx

__all__ = ["half"]


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights and inner tensors are float16; its inputs and outputs stay.

    Args:
        model: With all its weights inside; it is left as it is.

    Raises:
        ValueError: The converter refuses it.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        # Its inference of shapes is native code, which strangers' files are kept from.
        found: onnx.ModelProto = convert_float_to_float16(
            copy, keep_io_types=True, disable_shape_infer=True
        )
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return found
