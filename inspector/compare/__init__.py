"""Several models, or many images.

from inspector.compare import compare

found = compare("float.onnx", "int8.onnx", ["cat.jpg", "dog.jpg"])
found.sentence, found.flips, found.parting.sentence, found.summary()
found.save("out")
"""

from inspector.compare.comparison import compare
from inspector.compare.executions import compare_executions
from inspector.compare.result import Comparison, Gates, ImageComparison, MapPair

__all__ = ["Comparison", "Gates", "ImageComparison", "MapPair", "compare", "compare_executions"]
