"""Operators that the twin runs and that have no gradient written as ONNX here."""

__all__ = ["WITHOUT_RULE"]

WITHOUT_RULE = {
    "no number of the image passes through it": (
        "BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Constant "
        "EyeLike HammingWindow HannWindow MelWeightMatrix NonMaxSuppression Unique "
    ).split(),
    "its body would have to be differentiated": ("GRU If LSTM Loop RNN Scan SequenceMap ").split(),
    "a sequence or an optional, not a tensor": (
        "ConcatFromSequence Optional OptionalGetElement OptionalHasElement SequenceAt "
        "SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength "
        "SplitToSequence "
    ).split(),
    "rare in networks for images; the twin has its gradient": (
        "AffineGrid Attention BiasGelu CastLike CenterCropPad Col2Im Compress CumProd CumSum "
        "DFT DeformConv Det FastGelu FusedConv FusedGemm FusedMatMul GridSample LpPool "
        "MaxRoiPool MaxUnpool NegativeLogLikelihoodLoss NhwcMaxPool ParametricSoftplus QGemm "
        "QLinearAdd QLinearAveragePool QLinearConcat QLinearGlobalAveragePool "
        "QLinearLeakyRelu QLinearMul QLinearSigmoid QLinearSoftmax ReverseSequence RoiAlign "
        "RotaryEmbedding STFT ScaledTanh Scatter ScatterElements ScatterND "
        "SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization "
        "TensorScatter TopK "
    ).split(),
}
"""Names of operators, by the reason; a test holds it against both tables."""
