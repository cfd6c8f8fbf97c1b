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
        "gradient": lambda v, s: s * (v > 0),
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


@oracle("hires-cam")
def hires_cam(net, x, target):
    """Draelos and Carin 2020: gradient times activation, summed over the maps."""
    A = net.layer(x)
    g = gradient_at(net, A, target)
    total = np.zeros(A.shape[1:])
    for k, i, j in np.ndindex(*A.shape):
        total[i, j] += g[k, i, j] * A[k, i, j]
    return np.maximum(total, 0)


@oracle("layer-cam")
def layer_cam(net, x, target):
    """Jiang et al. 2021, equations 4 to 6."""
    A = net.layer(x)
    g = gradient_at(net, A, target)
    total = np.zeros(A.shape[1:])
    for k, i, j in np.ndindex(*A.shape):
        total[i, j] += max(g[k, i, j], 0) * A[k, i, j]
    return np.maximum(total, 0)


@oracle("x-grad-cam")
def x_grad_cam(net, x, target):
    """Fu et al. 2020, equation 8."""
    A = net.layer(x)
    g = gradient_at(net, A, target)
    total = np.zeros(A.shape[1:])
    for k in range(len(A)):
        if A[k].sum() == 0:
            continue
        alpha = 0.0
        for i, j in np.ndindex(*A.shape[1:]):
            alpha += A[k, i, j] / A[k].sum() * g[k, i, j]
        total += alpha * A[k]
    return np.maximum(total, 0)


@oracle("eigen-cam")
def eigen_cam(net, x, target):
    """Muhammad and Yeasin 2020: the first right singular vector by power iteration."""
    del target  # not class-specific
    A = net.layer(x)
    vector = np.ones(len(A))
    for _ in range(2000):
        step = np.zeros(len(A))
        for i, j in np.ndindex(*A.shape[1:]):
            step += A[:, i, j] * (A[:, i, j] @ vector)
        vector = step / np.linalg.norm(step)
    shown = np.einsum("k,kij->ij", vector, A)
    return np.maximum(shown if shown.sum() >= 0 else -shown, 0)


@oracle("score-cam")
def score_cam(net, x, target):
    """Wang et al. 2020, equations 3 to 6."""
    A = net.layer(x)
    total = np.zeros(A.shape[1:])
    for values in A:
        mask = literal_upsample(values, HEIGHT, WIDTH)
        mask = (mask - mask.min()) / ((mask.max() - mask.min()) or 1.0)
        total = total + (net(x * mask)[target] - net(x * 0)[target]) * values
    return np.maximum(total, 0)


@oracle("ablation-cam")
def ablation_cam(net, x, target):
    """Desai and Ramaswamy 2020, equations 3 and 5."""
    A = net.layer(x)
    score = net.tail(A)[target]
    total = np.zeros(A.shape[1:])
    for k in range(len(A)):
        without = A.copy()
        without[k] = 0
        total += (score - net.tail(without)[target]) / abs(score) * A[k]
    return np.maximum(total, 0)


@oracle("recipro-cam")
def recipro_cam(net, x, target):
    """Byun and Lee 2022, section 3.2, less the score of an empty layer."""
    A = net.layer(x)
    found = np.zeros(A.shape[1:])
    for i, j in np.ndindex(*A.shape[1:]):
        mask = np.zeros(A.shape[1:])
        for di, dj in np.ndindex(3, 3):
            y, x_ = i + di - 1, j + dj - 1
            if 0 <= y < mask.shape[0] and 0 <= x_ < mask.shape[1]:
                mask[y, x_] = 1 / (4 * 2 ** abs(di - 1) * 2 ** abs(dj - 1))
        found[i, j] = net.tail(A * mask)[target] - net.tail(A * 0)[target]
    return found


BLACK = (0.0 - np.array([0.4, 0.5, 0.6])) / np.array([0.2, 0.25, 0.3])
"""A black pixel under the preprocessing of ``test_methods``."""


@oracle("integrated-gradients", steps=5)
def integrated_gradients(net, x, target):
    """Sundararajan et al. 2017, equation 3, at the midpoints of 5 parts."""
    plain = np.zeros_like(x) + BLACK[:, None, None]
    total = np.zeros_like(x)
    for i in range(1, 6):
        total += literal_signal(net, plain + (i - 0.5) / 5 * (x - plain), target, "gradient")
    return (x - plain) * total / 5


@oracle("smooth-grad", samples=3, noise=0.1, seed=4)
def smooth_grad(net, x, target):
    """Smilkov et al. 2017, section 3."""
    noise = np.random.default_rng(4).standard_normal((3, *x.shape))
    total = np.zeros_like(x)
    for one in noise:
        total += literal_signal(net, x + 0.1 * (x.max() - x.min()) * one, target, "gradient")
    return total / 3


@oracle("input-x-gradient")
def input_x_gradient(net, x, target):
    """Shrikumar et al. 2016."""
    return x * literal_signal(net, x, target, "gradient")


def shared(contributions, bias, relevance, positive):
    """Relevance of one output by what its inputs contribute, one number per contribution."""
    if positive:
        contributions, bias = np.maximum(contributions, 0), max(bias, 0)
    total = contributions.sum() + bias + (1e-6 if positive else 0)
    return contributions / (total or 1) * relevance


def literal_relevance(net, x, target, *, positive):
    """Relevance at the input: the epsilon rule, or in convolutions the positive parts alone."""

    def through(w, below, relevance, bias):
        edge = w.shape[2] // 2
        padded = np.pad(below, ((0, 0), (edge, edge), (edge, edge)))
        down = np.zeros_like(padded)
        size = w.shape[2]
        for o, i, j in np.ndindex(*relevance.shape):
            patch = padded[:, i : i + size, j : j + size]
            part = shared(w[o] * patch, float(bias[o]), relevance[o, i, j], positive)
            down[:, i : i + size, j : j + size] += part
        return down[:, edge : down.shape[1] - edge, edge : down.shape[2] - edge]

    w1, w2 = net.w1.astype(float), net.w2.astype(float)
    r1 = np.maximum(correlate(x, w1, 1), 0)
    p1 = r1.reshape(4, HEIGHT // 2, 2, WIDTH // 2, 2).max(axis=(2, 4))
    A = np.maximum(correlate(p1, w2, 1), 0)
    maps = net.pooled(A)
    weights, score = net.head[target].astype(float), net(x)[target]
    at_means = shared(weights * maps.mean(axis=(1, 2)), float(net.bias[target]), score, False)
    below = np.zeros_like(maps)
    for k, i, j in np.ndindex(*maps.shape):
        if maps[k].sum():
            below[k, i, j] = maps[k, i, j] / maps[k].sum() * at_means[k]
    if net.deep:  # a Relu hands on what it gets; where it is 0 it gets nothing
        below = through(net.w3.astype(float), A, below, net.b3.astype(float))
    at_p1 = through(w2, p1, below, np.zeros(len(w2)))
    at_r1 = np.zeros_like(r1)
    for k, i, j in np.ndindex(*p1.shape):
        window = r1[k, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        di, dj = np.unravel_index(window.argmax(), (2, 2))
        at_r1[k, 2 * i + di, 2 * j + dj] += at_p1[k, i, j]
    return through(w1, x, at_r1, np.zeros(len(w1)))


@oracle("lrp-epsilon-plus")
def lrp_epsilon_plus(net, x, target):
    """Bach et al. 2015, equation 58 for the linear layer, 60 with alpha 1 for convolutions."""
    return literal_relevance(net, x, target, positive=True)


@oracle("attn-lrp")
def attn_lrp(net, x, target):
    """Achtibat et al. 2024, equation 8 everywhere; transformers in test_relevance.py."""
    return literal_relevance(net, x, target, positive=False)


@oracle("rise", masks=9, cells=3, keep=0.4, seed=2)
def rise(net, x, target):
    """Petsiuk et al. 2018, equation 6, less the mean score; 12 x 10 in cells of 4 x 4 pixels."""
    rng = np.random.default_rng(2)
    masks, scores = [], []
    for _ in range(9):
        cells = (rng.random((4, 4)) < 0.4).astype(float)
        top, left = int(rng.integers(4)), int(rng.integers(4))
        laid = literal_upsample(cells, 16, 16)
        mask = np.zeros(x.shape[1:])
        for i, j in np.ndindex(*mask.shape):
            mask[i, j] = laid[i + top, j + left]
        masks.append(mask)
        scores.append(net(x * mask)[target])  # what is hidden has the mean colour: 0
    mean = sum(scores) / 9
    return sum((s - mean) * m for s, m in zip(scores, masks, strict=True))[None] / (9 * 0.4)


def convolutional():
    """Methods that are defined on classifiers without attention."""
    from inspector.methods import methods

    return {name: one for name, one in methods().items() if not one.needs & {"attention", "boxes"}}
