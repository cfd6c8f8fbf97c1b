"""Source frameworks to ONNX: one file per framework, the same verbs in each.

Each module offers ``recognises(path) -> bool`` and ``convert(source, ...)``.
"""
