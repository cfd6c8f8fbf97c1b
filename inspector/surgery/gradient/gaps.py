"""Operators that the twin runs and that have no gradient written as ONNX here."""

__all__ = ["WITHOUT_RULE"]

WITHOUT_RULE = {
    "no number of the image passes through it": [
        "BitCast",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "BlackmanWindow",
        "Constant",
        "EyeLike",
        "HammingWindow",
        "HannWindow",
        "MelWeightMatrix",
        "NonMaxSuppression",
        "Unique",
    ],
    "which of its bodies runs depends on the image, or on the size or number of images": [
        "If",
    ],
    "its body would have to be differentiated": [
        "Loop",
        "Scan",
        "SequenceMap",
    ],
    "a sequence or an optional, not a tensor": [
        "ConcatFromSequence",
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceLength",
        "SplitToSequence",
    ],
    "the maximum of a region, of detectors before RoiAlign": [
        "MaxRoiPool",
    ],
    "spectra of signals, complex in between": [
        "DFT",
        "STFT",
    ],
    "a cache that grows from call to call, or a loss of training": [
        "NegativeLogLikelihoodLoss",
        "TensorScatter",
    ],
    "rare in networks for images, and its gradient divides by what may be zero": [
        "CumProd",
        "Det",
    ],
}
"""Names of operators, by the reason; a test holds it against both tables. The twin has the gradient
of those that have one."""
