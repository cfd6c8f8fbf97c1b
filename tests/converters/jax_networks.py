"""Networks as their authors write them in JAX and Flax; converted by ``test_jax.py``.

Imported in the environment of JAX alone, by the name that the test gives.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import onnx
import onnx_layers
from flax import linen, nnx

SAMPLES = Path(os.environ.get("SAMPLE_MODELS", "sample_models"))
KERNEL = jax.random.normal(jax.random.PRNGKey(1), (3, 3, 3, 8))


class ResNet20(nnx.Module):
    """The sample ResNet-20, node by node in NHWC: the layers are Flax' own, the numbers ours."""

    def __init__(self, path, rngs):
        self.graph = nnx.static(onnx.load(path).graph)  # noqa: TID251 - our own sample model
        layers = {}
        for name, kernel, bias, strides, padding in onnx_layers.weighted(self.graph):
            if kernel.ndim == 4:
                layer = nnx.Conv(
                    kernel.shape[1],
                    len(kernel),
                    kernel.shape[2:],
                    rngs=rngs,
                    strides=strides,
                    padding=padding,
                )
                own = kernel.transpose(2, 3, 1, 0)
            else:
                layer = nnx.Linear(kernel.shape[1], len(kernel), rngs=rngs)
                own = kernel.T
            layer.kernel.set_value(jnp.asarray(own))
            layer.bias.set_value(jnp.asarray(bias))
            layers[name] = layer
        self.layers = nnx.Dict(layers)

    def __call__(self, image):
        return onnx_layers.forward(
            self.graph, image, self.layers, nnx.relu, lambda x: x.mean(axis=(1, 2))
        )


def resnet20():
    return ResNet20(SAMPLES / "resnet20.onnx", nnx.Rngs(0))


class Small(nnx.Module):
    """What differs between training and use is in it: a norm with averages, dropout."""

    def __init__(self, rngs):
        self.first = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.second = nnx.Conv(8, 16, (3, 3), strides=2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def pooled(self, x):
        return nnx.max_pool(x, window_shape=(2, 2), strides=(2, 2))

    def __call__(self, x):
        x = self.pooled(nnx.relu(self.norm(self.first(x))))
        x = nnx.relu(self.second(x)).mean(axis=(1, 2))
        return self.head(self.dropout(x))


class PositionalPooling(Small):
    """jax2onnx takes the place of Flax' pooling and wants its arguments by name."""

    def pooled(self, x):
        return nnx.avg_pool(x, (2, 2), (2, 2))


class Attention(nnx.Module):
    """Patches, a norm, one attention: a small vision transformer."""

    def __init__(self, rngs):
        self.patches = nnx.Conv(3, 16, (4, 4), strides=4, rngs=rngs)
        self.norm = nnx.LayerNorm(16, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            num_heads=2, in_features=16, decode=False, rngs=rngs
        )
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x):
        x = self.patches(x)
        x = x.reshape(x.shape[0], -1, x.shape[3])
        x += self.attention(self.norm(x))
        return self.head(nnx.gelu(x).mean(axis=1))


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(8, (3, 3))(x))
        x = linen.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        return linen.Dense(5)(x.reshape((x.shape[0], -1)))


def small():
    return Small(nnx.Rngs(0))


def positional():
    return PositionalPooling(nnx.Rngs(0))


def attention():
    return Attention(nnx.Rngs(0))


def with_variables():
    module = Linen()
    return module, module.init(jax.random.PRNGKey(0), jnp.zeros((1, 16, 16, 3)))


@jax.jit
def plain(image):
    maps = jax.lax.conv_general_dilated(
        image, KERNEL, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return {"scores": jax.nn.relu(maps).mean(axis=(1, 2)), "maps": maps}


def pair(one, two):
    return one @ two.T


def failing():
    raise ValueError("no weights here")


def number():
    return 3
