"""Signals of matrix products.

A constant matrix is transposed by Gemm's own switches, never by a node that would do it again for
every photo.
"""

import string
from collections.abc import Mapping, Sequence

from inspector.surgery.gradient.builder import Builder
from inspector.surgery.gradient.table import RULES, CannotDifferentiate, Step

__all__ = ["gemm", "times_transposed"]


def gemm(b: Builder, A: str, B: str, *, alpha: float = 1.0, ta: int = 0, tb: int = 0) -> str:
    """``alpha A B`` with either of them transposed."""
    given = [A, B] if b.opset >= 11 else [A, B, b.constant([0.0])]
    return b.op("Gemm", given, alpha=alpha, transA=ta, transB=tb)


@RULES.register("Gemm")
def gemm_rule(b: Builder, step: Step) -> Mapping[int, str]:
    """``alpha A B + beta C``."""
    attributes = step.node.attributes
    ta, tb = int(attributes.get("transA", 0)), int(attributes.get("transB", 0))
    alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
    g, found = step.signal, {}
    A, B = b.value(step.input(0)), b.value(step.input(1))
    if 0 in step.wanted:
        if ta:
            found[0] = gemm(b, B, g, alpha=alpha, ta=tb, tb=1)
        else:
            found[0] = gemm(b, g, B, alpha=alpha, tb=1 - tb)
    if 1 in step.wanted:
        if tb:
            found[1] = gemm(b, g, A, alpha=alpha, ta=1, tb=ta)
        else:
            found[1] = gemm(b, A, g, alpha=alpha, ta=1 - ta)
    if 2 in step.wanted:
        whole = b.dims(step.node.outputs[0])
        found[2] = b.scaled(b.narrowed(g, whole, b.dims(step.input(2))), beta)
    return found


@RULES.register("MatMul")
def mat_mul(b: Builder, step: Step) -> Mapping[int, str]:
    """Matrix product over the last two axes, with NumPy's rules for one axis and for batches."""
    A, B = step.input(0), step.input(1)
    a, c, out = b.dims(A), b.dims(B), b.dims(step.node.outputs[0])
    g, found = step.signal, {}
    if len(a) == 1 or len(c) == 1:
        if len(a) == 1 and len(c) == 1:
            raise CannotDifferentiate("the product of two vectors")
        if len(c) == 1:  # (..., K) . (K) to (...)
            g = b.unsqueeze(g, [len(out)])
            if 0 in step.wanted:
                found[0] = b.mul(g, b.value(B))
            if 1 in step.wanted:
                product = b.mul(g, b.value(A))
                found[1] = b.sum(product, list(range(len(a) - 1)), keep=False)
            return found
        raise CannotDifferentiate("a vector times a matrix")
    if 0 in step.wanted:
        found[0] = times_transposed(b, g, b.value(B), out=out, c=c, a=a)
    if 1 in step.wanted:
        order = [*range(len(a) - 2), len(a) - 1, len(a) - 2]
        product = b.op("MatMul", [b.transpose(b.value(A), order), g])
        batch = out[:-2]
        found[1] = b.narrowed(product, (*batch, *c[-2:]), c)
    return found


def times_transposed(
    b: Builder, g: str, B: str, *, out: Sequence[int], c: Sequence[int], a: Sequence[int]
) -> str:
    """``g B^T`` in the shape of A, where g is the signal at ``A B``.

    Args:
        b: Where it is written.
        g: The signal, (..., M, N).
        B: The matrix, (..., K, N).
        out: Shape of g.
        c: Shape of B.
        a: Shape of A.
    """
    if len(c) == 2:
        if len(a) == 2:
            return gemm(b, g, B, tb=1)
        flat = gemm(b, b.reshape(g, (-1, out[-1])), B, tb=1)
        return b.reshape(flat, b.with_batch(a))
    order = [*range(len(c) - 2), len(c) - 1, len(c) - 2]
    product = b.op("MatMul", [g, b.transpose(B, order)])
    return b.narrowed(product, (*out[:-2], *a[-2:]), a)


def _spelled_out(b: Builder, step: Step, equation: str) -> str:
    """An equation with letters for its ellipses, where all of them stand for axes of one shape."""
    left, arrow, _ = equation.partition("->")
    shapes = set()
    for term, name in zip(left.split(","), step.node.inputs, strict=True):
        before, dots, behind = term.partition("...")
        if dots:
            dims = b.dims(name)
            shape = dims[len(before) : len(dims) - len(behind)]
            if b.graph.constant(name) is not None and 1 in shape:
                raise CannotDifferentiate(f"{name!r} is repeated along axes that are not named")
            shapes.add(shape)
    if not arrow or len(shapes) != 1:
        return equation
    unused = (c for c in string.ascii_letters if c not in equation)
    return equation.replace("...", "".join(next(unused) for _ in shapes.pop()))


@RULES.register("Einsum", since=12)
def einsum(b: Builder, step: Step) -> Mapping[int, str]:
    """Sum of products: each factor's signal is the sum over the others and the result's."""
    equation = _spelled_out(b, step, str(step.node.attributes["equation"]).replace(" ", ""))
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or any(len(set(t)) < len(t) for t in (*terms, result)):
        raise CannotDifferentiate(f"the equation {equation!r}")
    found = {}
    for position in step.wanted:
        others = [t for i, t in enumerate(terms) if i != position]
        names = [b.value(n) for i, n in enumerate(step.node.inputs) if i != position]
        own = terms[position]
        reached = "".join(letter for letter in own if letter in {*result, *"".join(others)})
        formula = ",".join([result, *others]) + "->" + reached
        signal = b.op("Einsum", [step.signal, *names], equation=formula)
        if reached != own:  # summed over in the factor alone: the same signal for each index
            axes = [i for i, letter in enumerate(own) if letter not in reached]
            signal = b.expanded(b.unsqueeze(signal, axes), step.node.inputs[position])
        found[position] = signal
    return found
