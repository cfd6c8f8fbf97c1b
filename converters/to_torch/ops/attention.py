"""Attention and rotary position embedding.

Shapes: N samples, Hq and Hk heads of queries and keys, L queries, S keys, E features.
"""

import math

import torch
from torch import Tensor

from converters.errors import ConverterError
from converters.to_torch.optable import OPS

__all__ = ["attention", "rotary_embedding"]


@OPS.register("Attention", since=23)
def attention(
    Q: Tensor,
    K: Tensor,
    V: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Tensor | None = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """softmax(scale Q K' + mask) V, with grouped heads, caches, caps and windows.

    A query that may attend to nothing gives zero.
    """
    flat = Q.dim() == 3
    if flat:
        if not q_num_heads or not kv_num_heads:
            raise ConverterError("Attention of 3-D tensors without its numbers of heads")
        Q = _split(Q, q_num_heads)
        K, V = _split(K, kv_num_heads), _split(V, kv_num_heads)
    if past_key is not None and past_value is not None:
        K, V = torch.cat([past_key, K], dim=2), torch.cat([past_value, V], dim=2)
    present = (K, V)
    groups = Q.shape[1] // K.shape[1]
    if groups > 1:
        K, V = K.repeat_interleave(groups, dim=1), V.repeat_interleave(groups, dim=1)
    root = math.sqrt(scale if scale is not None else 1 / math.sqrt(Q.shape[3]))
    raw = (Q * root) @ (K * root).transpose(2, 3)
    capped = softcap * torch.tanh(raw / softcap) if softcap else raw
    start = past_key.shape[2] if past_key is not None else 0
    allowed = _allowed(
        Q.shape[2],
        K.shape[2],
        start,
        nonpad_kv_seqlen,
        Q.device,
        left_window_size,
        0 if is_causal and right_window_size < 0 else right_window_size,
        causal=bool(is_causal),
    )
    bias = _bias(attn_mask, allowed, capped)
    biased = capped if bias is None else capped + bias
    weights = _softmax(biased, bias)
    Y = weights @ V
    exposed = (raw, capped, biased, weights)[qk_matmul_output_mode]
    return (Y.transpose(1, 2).flatten(2) if flat else Y), *present, exposed


def _split(x: Tensor, heads: int) -> Tensor:
    """(N, L, heads * E) -> (N, heads, L, E)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _allowed(
    queries: int,
    keys: int,
    start: int,
    lengths: Tensor | None,
    device: torch.device,
    left: int,
    right: int,
    *,
    causal: bool,
) -> Tensor | None:
    """Which query may see which key, by position alone: (L, S) or (N, 1, L, S); None for all.

    Query i stands at position ``start + i``, or with an outside cache of ``lengths`` (N,) filled
    keys at ``length - L + i``; it sees keys from ``left`` before to ``right`` after it.
    """
    if left < 0 and right < 0 and lengths is None:
        return None
    key = torch.arange(keys, device=device)
    query = torch.arange(queries, device=device)[:, None] + start
    allowed = torch.ones(queries, keys, dtype=torch.bool, device=device)
    if lengths is not None:
        ends = lengths.reshape(-1, 1, 1, 1).to(device)
        query = query - start + ends - queries
        allowed = allowed & (key < ends)
    if left >= 0:
        allowed = allowed & (query - key <= left)
    if right >= 0:
        allowed = allowed & (key - query <= right)
    if causal:
        allowed = allowed & (key <= query)
    return allowed


def _bias(mask: Tensor | None, allowed: Tensor | None, scores: Tensor) -> Tensor | None:
    """What is added to the scores: minus infinity where a key must not be seen."""
    minus = torch.full((), -math.inf, dtype=scores.dtype, device=scores.device)
    bias = None
    if mask is not None:
        bias = torch.where(mask, 0.0, minus) if mask.dtype == torch.bool else mask
        missing = scores.shape[-1] - mask.shape[-1]
        if missing > 0:
            rest = minus.expand(*mask.shape[:-1], missing)
            bias = torch.cat([bias, rest], dim=-1)
    if allowed is None:
        return bias
    return torch.where(allowed, 0.0 if bias is None else bias, minus)


def _softmax(scores: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax over keys; zero, not NaN, where no key may be seen."""
    if bias is None:
        return torch.softmax(scores, dim=-1)
    blind = (bias == -math.inf).all(dim=-1, keepdim=True)
    return torch.softmax(scores.masked_fill(blind, 0.0), dim=-1).masked_fill(blind, 0.0)


@OPS.register("RotaryEmbedding", since=23)
def rotary_embedding(
    X: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    position_ids: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int | None = None,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """Turn pairs of features by angles that grow with the position (Su et al. 2021)."""
    if X.dim() == 3 and not num_heads:
        raise ConverterError("RotaryEmbedding of a 3-D tensor without num_heads")
    heads = X if X.dim() == 4 else _split(X, num_heads or 1)
    size = rotary_embedding_dim or heads.shape[3]
    turned, rest = heads[..., :size], heads[..., size:]
    if position_ids is not None:
        index = position_ids.to(torch.int64)
        cos_cache, sin_cache = cos_cache[index], sin_cache[index]
    cos, sin = cos_cache.unsqueeze(1), sin_cache.unsqueeze(1)  # the same for every head
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned.chunk(2, dim=-1)
    parts = [cos * a - sin * b, sin * a + cos * b]
    turned = torch.stack(parts, dim=-1).flatten(3) if interleaved else torch.cat(parts, dim=-1)
    Y = torch.cat([turned, rest], dim=-1)
    return Y if X.dim() == 4 else Y.transpose(1, 2).flatten(2)
