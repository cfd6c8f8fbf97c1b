"""Reverse-mode differentiation of an ONNX graph into ONNX operators.

``table`` holds one rule per operator, the vector-Jacobian product: from the signal at a node's
outputs to the signals at its inputs.  The modules beside it are the rules, by subject; ``reverse``
walks a graph backwards with them; ``program`` joins the forward nodes and the backward ones to a
model.  Nothing here needs torch, and a weight is read where the file has it.
"""

# Importing the modules of the rules fills the table.
from inspector.surgery.gradient import (  # noqa: F401
    activations,
    arithmetic,
    attention,
    convolution,
    fused,
    indexing,
    matrix,
    normalisation,
    pooling,
    quantisation,
    quantised_fused,
    recurrent,
    reductions,
    regions,
    resize,
    sampling,
    scattering,
    shape,
)
from inspector.surgery.gradient.program import GradientProgram, gradient_program
from inspector.surgery.gradient.reverse import Overlay, reverse
from inspector.surgery.gradient.table import RULES, RuleTable, Step

__all__ = [
    "RULES",
    "GradientProgram",
    "Overlay",
    "RuleTable",
    "Step",
    "gradient_program",
    "reverse",
]
