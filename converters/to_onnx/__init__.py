"""Source frameworks to ONNX: one file per framework, the same names in each.

What those names are stands in ``converters.source``; ``converters.conversion`` calls them.
"""
