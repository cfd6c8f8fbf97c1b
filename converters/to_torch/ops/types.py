"""Changing the element type.

Integers of 2 and 4 bits are carried in 8 bits, and float4 in float32: torch names these types
but cannot compute with them.
"""

import torch
from torch import Tensor

from converters.to_torch.optable import OPS

_SMALL_INTEGERS: dict[torch.dtype, tuple[int, torch.dtype]] = {
    getattr(torch, name): (bits, carrier)  # torch's stubs do not name these types
    for name, bits, carrier in (
        ("int4", 4, torch.int8),
        ("uint4", 4, torch.uint8),
        ("int2", 2, torch.int8),
        ("uint2", 2, torch.uint8),
    )
}

# No operator takes indices of these types, so a float in their place is only calculated with.
_LEVELS = {torch.uint8, torch.int8, torch.uint16, torch.int16}

_FLOAT8_ROUNDS_TO_MAX = {
    # Largest value that still rounds to the type's maximum: half a step above it.
    torch.float8_e4m3fn: 464.0,
    torch.float8_e4m3fnuz: 248.0,
    torch.float8_e5m2: 61440.0,
    torch.float8_e5m2fnuz: 61440.0,
}


@OPS.register("Cast", since=6)
def cast(input: Tensor, *, to: torch.dtype, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """Change the element type; float8 saturates or overflows as asked for."""
    if to in _SMALL_INTEGERS:
        return _to_small_integer(input, to)
    if to in _FLOAT8_ROUNDS_TO_MAX:
        return _to_float8(input, to, saturate)
    if to is torch.float8_e8m0fnu:
        return _to_power_of_two(input, saturate, round_mode)
    if to is torch.float4_e2m1fn_x2:
        return _to_float4(input)
    if to in _LEVELS and input.requires_grad:
        return _to_level(input, to)
    return input.to(to)


def _to_level(input: Tensor, to: torch.dtype) -> Tensor:
    """Cast a quantised value that is carried as a float: straight-through, see ``quantisation``.

    Exporters write such casts between QuantizeLinear and DequantizeLinear.  A number that is no
    whole one is not a quantised value: its gradient stops, as it does in any cast to integers.
    """
    levels, limits = input.detach(), torch.iinfo(to)
    low, high = levels.aminmax() if levels.numel() else (0, 0)
    if not torch.equal(levels, levels.round()):
        return input.to(to)
    if limits.min <= low and high <= limits.max:
        return input
    return input + (levels.to(torch.int64).to(to).to(levels.dtype) - levels)


def _to_small_integer(input: Tensor, to: torch.dtype) -> Tensor:
    """Keep the lowest bits, as casts between integers do."""
    bits, carrier = _SMALL_INTEGERS[to]
    x: Tensor = input.to(torch.int64) & (2**bits - 1)
    if carrier is torch.int8:
        x = torch.where(x >= 2 ** (bits - 1), x - 2**bits, x)
    return x.to(carrier)


def _to_float8(input: Tensor, to: torch.dtype, saturate: int) -> Tensor:
    x = input.to(torch.float32)
    largest = torch.finfo(to).max
    if saturate:
        return x.clamp(-largest, largest).to(to)
    over = x.abs() > _FLOAT8_ROUNDS_TO_MAX[to]
    if to is torch.float8_e5m2:
        return torch.where(over, x.sign() * torch.inf, x).to(to)
    return torch.where(over, torch.nan, x).to(to)


def _to_power_of_two(input: Tensor, saturate: int, round_mode: str) -> Tensor:
    """Round to float8e8m0, which has an exponent only."""
    x = input.to(torch.float64)
    mantissa, exponent = torch.frexp(x)  # x = mantissa 2^exponent, mantissa in [1/2, 1)
    above = {"up": mantissa > 0.5, "down": mantissa >= 1, "nearest": mantissa >= 0.75}[round_mode]
    power = torch.where(above, exponent, exponent - 1)
    rounded = torch.ldexp(torch.ones_like(x), power)
    low, high = 2.0**-127, 2.0**127
    if saturate:
        rounded = torch.where(x.isposinf(), high, rounded.clamp(low, high))
        rounded = torch.where(x == 0, low, rounded)
    else:
        invalid = (x == 0) | (rounded > high) | (rounded < low)
        rounded = torch.where(invalid, torch.nan, rounded)
    return torch.where(x.isnan(), torch.nan, rounded).to(torch.float32).to(torch.float8_e8m0fnu)


def _to_float4(input: Tensor) -> Tensor:
    """Round to the sixteen values of float4e2m1, halves to the even mantissa, saturating."""
    x = input.to(torch.float32)
    size = x.abs().clamp(max=6.0)
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return torch.copysign(torch.round(size / step) * step, x)


@OPS.register("CastLike", since=15)
def cast_like(
    input: Tensor, target_type: Tensor, *, saturate: int = 1, round_mode: str = "up"
) -> Tensor:
    """Change the element type to that of another tensor."""
    if target_type.dtype in {torch.int8, torch.uint8}:
        raise NotImplementedError("a tensor of 8 bits may stand for one of 2 or 4 bits")
    return cast(input, to=target_type.dtype, saturate=saturate, round_mode=round_mode)


@OPS.register("BitCast", since=26)
def bit_cast(input: Tensor, *, to: torch.dtype) -> Tensor:
    """Read the same bits as another type."""
    if to in _SMALL_INTEGERS or to is torch.float4_e2m1fn_x2 or to.itemsize != input.dtype.itemsize:
        raise NotImplementedError("the twin carries one of the types in another width")
    return input.view(to)
