"""Small transformers in plain torch, and what Grad-CAM and its kin are on them by torch alone.

Nothing of the project is used here: tokens are taken off the module by a hook, the gradient is
torch's own, and the grid is the one that the module was built with.
"""

import io
import warnings

import numpy as np
import torch
from torch import nn

SIZE = (48, 32)
PATCH = 8
GRID = (SIZE[0] // PATCH, SIZE[1] // PATCH)
CLASSES = 4


class Block(nn.Module):
    """A block with the normalisation first, two heads."""

    def __init__(self, width, *, fused=False):
        super().__init__()
        self.fused = fused
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.normal_(self.qkv.weight, std=0.5)

    def attend(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        if self.fused:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = ((q @ k.transpose(-1, -2)) * (c // 2) ** -0.5).softmax(-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(n, t, c))

    def forward(self, x):
        x = x + self.attend(self.norm1(x))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """Patches, extra tokens in front, two blocks, a linear head.

    Args:
        extra: Tokens in front of the patches; the first one is read by the head, or their mean
            where there is none.
        across: Patches are numbered down the columns first.
        keep: Patches that stay, by number; None for all.
    """

    def __init__(self, extra=1, *, across=False, keep=None, fused=False, width=16):
        super().__init__()
        self.extra, self.across, self.keep = extra, across, keep
        count = GRID[0] * GRID[1]
        self.patch = nn.Conv2d(3, width, PATCH, PATCH)
        self.first = nn.Parameter(torch.randn(1, extra, width))
        self.position = nn.Parameter(torch.randn(1, count + extra, width))
        self.blocks = nn.ModuleList(Block(width, fused=fused) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.patch(x)
        x = (x.transpose(2, 3) if self.across else x).flatten(2).transpose(1, 2)
        if self.extra:
            x = torch.cat((self.first.expand(x.shape[0], -1, -1), x), 1)
        x = x + self.position
        if self.keep is not None:
            x = x[:, self.keep]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.extra else x.mean(1))

    @property
    def layer(self):
        return self.blocks[-1].norm1

    def as_map(self, tokens):
        """Tokens (1, T, C) as a map (C, h, w)."""
        tokens = tokens[0, self.extra :].T
        if self.across:
            return tokens.reshape(len(tokens), GRID[1], GRID[0]).transpose(1, 2)
        return tokens.reshape(len(tokens), *GRID)


class OwnBlock(nn.Module):
    """A block with torch's own attention, on tokens (T, N, C) or (N, T, C)."""

    def __init__(self, width, *, first):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=not first)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.normal_(self.attention.in_proj_weight, std=0.5)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, average_attn_weights=False)[0]
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class TokensFirst(ViT):
    """The blocks hold tokens as (T, N, C), like older CLIP exports; as usual if not ``first``."""

    def __init__(self, extra=1, *, first=True, width=16):
        super().__init__(extra, width=width)
        self.tokens_first = first
        self.blocks = nn.ModuleList(OwnBlock(width, first=first) for _ in range(2))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        if self.extra:
            x = torch.cat((self.first.expand(x.shape[0], -1, -1), x), 1)
        x = self.turned(x + self.position)
        for block in self.blocks:
            x = block(x)
        x = self.norm(self.turned(x))
        return self.head(x[:, 0] if self.extra else x.mean(1))

    def turned(self, x):
        return x.permute(1, 0, 2) if self.tokens_first else x

    def as_map(self, tokens):
        """Tokens (T, 1, C) as a map (C, h, w)."""
        return super().as_map(self.turned(tokens))


class Windows(nn.Module):
    """Swin in small: channels last, windows of 2x2, shifted in the second block, then merged."""

    def __init__(self, width=16):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.ModuleList(Block(w) for w in (width, width, 2 * width, 2 * width))
        self.merge = nn.Linear(4 * width, 2 * width)
        self.norm, self.head = nn.LayerNorm(2 * width), nn.Linear(2 * width, CLASSES)

    def window(self, block, x, shift):
        n, h, w, c = x.shape
        if shift:
            x = torch.roll(x, (-1, -1), (1, 2))
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        x = block.attend(x)
        x = x.reshape(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return torch.roll(x, (1, 1), (1, 2)) if shift else x

    def forward(self, x):
        x = self.patch(x).permute(0, 2, 3, 1)
        for number, block in enumerate(self.blocks):
            if number == 2:
                parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
                x = self.merge(torch.cat(parts, -1))
            x = x + self.window(block, block.norm1(x), number % 2)
            x = x + block.fc2(nn.functional.gelu(block.fc1(block.norm2(x))))
        return self.head(self.norm(x).mean((1, 2)))

    @property
    def layer(self):
        return self.blocks[-1].norm1

    def as_map(self, tokens):
        return tokens[0].permute(2, 0, 1)


def exported(module, *, dynamo=False, opset=17):
    """The module as an ONNX file's bytes, the batch left free."""
    x = torch.rand(2, 3, *SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            free = ({0: torch.export.Dim("n", min=1, max=64)},)
            program = torch.onnx.export(
                module, (x,), dynamo=True, dynamic_shapes=free, opset_version=opset, verbose=False
            )
            return program.model_proto.SerializeToString()
        file = io.BytesIO()
        axes = {"pixels": {0: "n"}, "logits": {0: "n"}}
        torch.onnx.export(
            module,
            x,
            file,
            dynamo=False,
            opset_version=opset,
            input_names=["pixels"],
            output_names=["logits"],
            dynamic_axes=axes,
        )
        return file.getvalue()


def native(module, x, target):
    """Activation and gradient of the module's layer as maps (C, h, w), and the score."""
    kept = {}
    handle = module.layer.register_forward_hook(lambda _m, _i, out: kept.update(out=out))
    score = module(torch.from_numpy(x))[0, target]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept["out"])
    maps = (module.as_map(t).detach().numpy().astype(np.float64) for t in (kept["out"], gradient))
    return (*maps, float(score.detach()))


def score_with(module, x, target, activation):
    """The score when the layer's grid holds another map (C, h, w); extra tokens stay."""
    at = module.as_map(torch.arange(module.extra + GRID[0] * GRID[1])[None, :, None])[0]
    new = torch.from_numpy(activation.astype(np.float32)).flatten(1).T

    def swap(_module, _inputs, out):
        out = out.clone()
        out[0, at.flatten()] = new
        return out

    handle = module.layer.register_forward_hook(swap)
    with torch.no_grad():
        score = float(module(torch.from_numpy(x))[0, target])
    handle.remove()
    return score
