"""A Keras model that computes in 16 bits or in float64, built anew to compute in float32.

Mixed precision is a way to train. ONNX Runtime computes convolutions of float16 on a processor by
casts, and those of bfloat16 and float64 not at all; so PyTorch's modules are widened as well.
"""

from collections.abc import Iterator
from typing import Any

__all__ = ["in_float32", "layers_within"]

_OTHERS = frozenset(
    ("bfloat16", "float16", "float64", "mixed_bfloat16", "mixed_float16")
)  # names of policies and of types


def in_float32(model: Any) -> tuple[Any, str]:
    """The same layers with the same weights, all of which compute in float32.

    Args:
        model: A functional model of Keras 2 or 3.

    Returns:
        The model, and a note; the very model and an empty note where it computes so already.
    """
    policies = sorted({_policy(layer) for layer in layers_within(model)} & _OTHERS)
    if not policies:
        return model, ""
    fresh = type(model).from_config(_widened(model.get_config()))
    for old, new in zip(layers_within(model), layers_within(fresh), strict=True):
        if old.name != new.name:  # never seen; weights by order alone could be another layer's
            raise ValueError(f"layer {new.name!r} stands where {old.name!r} was")
        new.set_weights([array.astype(_kept(array.dtype)) for array in old.get_weights()])
    return fresh, f"its layers compute in {', '.join(policies)}: in float32 here"


def layers_within(model: Any) -> Iterator[Any]:
    """Layers of a model and of the models within it, in order."""
    for layer in model.layers:
        if getattr(layer, "layers", None):
            yield from layers_within(layer)
        else:
            yield layer


def _policy(layer: Any) -> str:
    return str(getattr(getattr(layer, "dtype_policy", None), "name", ""))


def _widened(config: Any) -> Any:
    """A configuration whose types of floating point are all float32."""
    if isinstance(config, list | tuple):
        return type(config)(map(_widened, config))
    if not isinstance(config, dict):
        return config
    if str(config.get("class_name", "")).endswith(("Policy", "PolicyV1")):
        named = config.get("config")
        if isinstance(named, dict) and named.get("name") in _OTHERS:
            return {**config, "config": {**named, "name": "float32"}}
    return {
        key: "float32" if key == "dtype" and _is_other(value) else _widened(value)
        for key, value in config.items()
    }


def _is_other(value: object) -> bool:
    return isinstance(value, str) and value in _OTHERS


def _kept(dtype: Any) -> Any:
    """float32 in the place of every other floating type, bfloat16 (of kind V) among them."""
    return dtype if dtype.kind in "iub" else "float32"
