"""Figures of the papers as experiments on any model: one file each, none imports another.

import inspector
from inspector.studies.filters import filters

found = filters(inspector.load("model.onnx"))
found.sentences, found.numbers
found.save("out")
"""
