"""What the twin leaves out of the standard on purpose, in one list with the reasons.

The compiler refuses a node that uses a gap with anything but its default value; the test of
signatures against schemas accepts exactly these; ``docs/operators.md`` prints them.
"""

__all__ = ["GAPS", "IGNORED", "REFUSED"]

IGNORED = {
    "consumed_inputs": "a hint on memory, dropped from the standard at opset 6",
}
"""Attributes of any operator that never change a result."""

GAPS: dict[tuple[str, str, int, str], str] = {
    ("", "Cast", 1, "to"): "type names instead of numbers; opset 6 is the oldest carried",
    ("", "Constant", 11, "sparse_value"): "sparse tensors are not dense tensors",
    ("", "Constant", 12, "value_string"): "strings are not tensors of numbers",
    ("", "Constant", 12, "value_strings"): "strings are not tensors of numbers",
    ("", "GRU", 1, "direction"): "the schema of opset 1 misspells its default; later ones do not",
}
"""Reason by (domain, op_type, since, name of the attribute or input), from ``since`` on."""

_RANDOM = "draws random numbers: no twin can be equal"
_STRINGS = "works on strings"

REFUSED: dict[tuple[str, str], str] = {
    ("", "Bernoulli"): _RANDOM,
    ("", "Multinomial"): _RANDOM,
    ("", "RandomNormal"): _RANDOM,
    ("", "RandomNormalLike"): _RANDOM,
    ("", "RandomUniform"): _RANDOM,
    ("", "RandomUniformLike"): _RANDOM,
    ("", "ImageDecoder"): "decodes files, outside of any gradient",
    ("", "RegexFullMatch"): _STRINGS,
    ("", "StringConcat"): _STRINGS,
    ("", "StringNormalizer"): _STRINGS,
    ("", "StringSplit"): _STRINGS,
    ("", "TfIdfVectorizer"): "counts n-grams of text",
}
"""Whole operators that are left out, with the reason."""
