"""Every method once more: its paper's formula as literal loops, slow and without cleverness.

A new method is declared twice: with ``@method`` in ``inspector.methods``, and here with
``@oracle``.  The forward pass is `networks.Net`'s in NumPy (float64), gradients are taken by
differences, and nothing differentiates automatically.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from networks import HEIGHT, WIDTH, correlate


@dataclass(frozen=True)
class Oracle:
    """The slow twin of one method.

    Attributes:
        function: Takes a network, its input (C, H, W) and a class; gives the raw map, (h, w) of
            the layer ``A`` or (C, H, W).
        options: With which options the method is asked for.
    """

    function: Callable[..., np.ndarray]
    options: Mapping[str, Any]


ORACLES: dict[str, Oracle] = {}


def oracle(method, **options):
    """Declare the function below as what ``method`` must compute with these options."""

    def keep(function):
        ORACLES[method] = Oracle(function, options)
        return function

    return keep


def by_differences(function, at, eps=1e-6):
    """Gradient of a scalar function by central differences, element by element."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        up, down = at.copy(), at.copy()
        up[index] += eps
        down[index] -= eps
        gradient[index] = (function(up) - function(down)) / (2 * eps)
    return gradient


def literal_grad_cam(A, g):
    Z = A.shape[1] * A.shape[2]
    total = np.zeros(A.shape[1:])
    for k in range(len(A)):
        alpha = 0.0
        for i, j in np.ndindex(*A.shape[1:]):
            alpha += g[k, i, j] / Z
        total += alpha * A[k]
    return np.maximum(total, 0)


def literal_plus_plus_weights(A, g):
    """Equations 10 and 19 with exp(S) cancelled, nothing rearranged."""
    weights = np.zeros(len(A))
    for k in range(len(A)):
        total = A[k].sum()
        for i, j in np.ndindex(*A.shape[1:]):
            if g[k, i, j] == 0:
                continue
            alpha = g[k, i, j] ** 2 / (2 * g[k, i, j] ** 2 + total * g[k, i, j] ** 3)
            weights[k] += alpha * max(g[k, i, j], 0)
    return weights


def literal_signal(net, x, target, rule):
    """The signal at the input under a rule, node by node."""
    relu = {
        "deconvnet": lambda v, s: np.maximum(s, 0),
        "guided": lambda v, s: np.maximum(s, 0) * (v > 0),
    }[rule]

    def conv_back(w, signal, shape):
        down = np.zeros((shape[0], shape[1] + 2, shape[2] + 2))
        for o, i, j in np.ndindex(*signal.shape):
            down[:, i : i + 3, j : j + 3] += w[o] * signal[o, i, j]
        return down[:, 1:-1, 1:-1]

    w1, w2 = net.w1.astype(float), net.w2.astype(float)
    c1 = correlate(x, w1, 1)
    r1 = np.maximum(c1, 0)
    p1 = r1.reshape(4, HEIGHT // 2, 2, WIDTH // 2, 2).max(axis=(2, 4))
    c2 = correlate(p1, w2, 1)
    A = np.maximum(c2, 0)
    Z = A.shape[1] * A.shape[2]
    if net.deep:
        w3 = net.w3[:, :, 0, 0].astype(float)
        c3 = net.third(A)
        s3 = relu(c3, np.zeros_like(c3) + net.head[target].astype(float)[:, None, None] / Z)
        at_A = np.einsum("oc,ohw->chw", w3, s3)
    else:
        at_A = np.zeros_like(A) + net.head[target].astype(float)[:, None, None] / Z
    at_p1 = conv_back(w2, relu(c2, at_A), p1.shape)
    at_r1 = np.zeros_like(r1)
    for k, i, j in np.ndindex(*p1.shape):
        window = r1[k, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        di, dj = np.unravel_index(window.argmax(), (2, 2))  # ties: the first
        at_r1[k, 2 * i + di, 2 * j + dj] += at_p1[k, i, j]
    return conv_back(w1, relu(c1, at_r1), x.shape)


def literal_upsample(grid, height, width):
    """Bilinear, half-pixel centres, edges repeated."""
    h, w = grid.shape
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * h / height - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / width - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            fy, fx = y - y0, x - x0
            top = grid[y0, x0] * (1 - fx) + grid[y0, x1] * fx
            bottom = grid[y1, x0] * (1 - fx) + grid[y1, x1] * fx
            out[i, j] = top * (1 - fy) + bottom * fy
    return out


def literal_occlusion(f, x, fill, window, stride):
    """One position at a time; every position of a symmetric grid that reaches both borders."""
    height, width = x.shape[1:]

    def starts(length):
        count = 1
        while window + (count - 1) * stride < length:
            count += 1
        first = (length - window - (count - 1) * stride) // 2
        return [first + i * stride for i in range(count)]

    total, count = np.zeros((height, width)), np.zeros((height, width))
    before = f(x)
    for top in starts(height):
        for left in starts(width):
            y0, x0 = max(top, 0), max(left, 0)
            y1, x1 = min(top + window, height), min(left + window, width)
            hidden = x.copy()
            hidden[:, y0:y1, x0:x1] = fill[:, None, None]
            total[y0:y1, x0:x1] += before - f(hidden)
            count[y0:y1, x0:x1] += 1
    assert count.min() >= 1
    return total / count


def gradient_at(net, A, target):
    """dS/dA (C, h, w) of one class; what differences leave of a closed gate is zero."""
    g = by_differences(lambda a: net.tail(a)[target], A)
    return np.where(np.abs(g) < 1e-9, 0, g)


@oracle("cam")
def cam(net, x, target):
    """Zhou et al. 2016, equation 2: the head's weights on the maps that are pooled."""
    maps = net.pooled(net.layer(x))
    return sum(float(net.head[target, k]) * maps[k] for k in range(len(maps)))


@oracle("grad-cam")
def grad_cam(net, x, target):
    """Selvaraju et al. 2017, equations 1 and 2."""
    A = net.layer(x)
    return literal_grad_cam(A, gradient_at(net, A, target))


@oracle("grad-cam++")
def grad_cam_plus_plus(net, x, target):
    """Chattopadhay et al. 2018, equations 10 and 19."""
    A = net.layer(x)
    weights = literal_plus_plus_weights(A, gradient_at(net, A, target))
    return np.maximum(sum(w * a for w, a in zip(weights, A, strict=True)), 0)


@oracle("gradient")
def gradient(net, x, target):
    """Simonyan et al. 2014: dS/dx."""
    return by_differences(lambda v: net(v)[target], x)


@oracle("guided-backprop")
def guided_backprop(net, x, target):
    """Springenberg et al. 2015, figure 1."""
    return literal_signal(net, x, target, "guided")


@oracle("deconvnet")
def deconvnet(net, x, target):
    """Zeiler and Fergus 2014, section 2.1."""
    return literal_signal(net, x, target, "deconvnet")


@oracle("guided-grad-cam")
def guided_grad_cam(net, x, target):
    """Selvaraju et al. 2017, section 3.2."""
    coarse = grad_cam(net, x, target)
    return guided_backprop(net, x, target) * literal_upsample(coarse, HEIGHT, WIDTH)


@oracle("occlusion", window=4, stride=3)
def occlusion(net, x, target):
    """The drop of the score, averaged over the windows; the fill is the mean, network zero."""
    return literal_occlusion(lambda v: net(v)[target], x, np.zeros(3), 4, 3)[None]
