"""Maps of this project's methods, by way of an ONNX file that is exported from a module."""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import inspector
from inspector.errors import ExplainedError
from inspector.heatmap import Heatmap
from inspector.passes.maps import Map
from inspector.photos.geometry import Geometry
from inspector.run import ExplainRun

__all__ = ["METHODS", "Found", "heatmap", "maps", "opened"]

Array = np.ndarray[Any, Any]

METHODS = (
    *("gradient", "smooth-grad", "guided-backprop", "deconvnet", "input-x-gradient"),
    *("integrated-gradients:baseline=0", "lrp-epsilon-plus", "attn-lrp"),
    *("cam", "grad-cam", "grad-cam++", "hires-cam", "layer-cam", "x-grad-cam", "eigen-cam"),
    *("ablation-cam", "score-cam", "recipro-cam", "guided-grad-cam"),
    *("occlusion:window=8,stride=8,fill=0", "rise:fill=0"),
)
"""Black is the reference of every unit, and so what hides."""


@dataclass(frozen=True)
class Found:
    """What one method answers.

    Attributes:
        values: (H, W); None where it refuses.
        said: The refusal, or the notes that stand with the map.
    """

    values: Array | None
    said: str


@cache
def opened(module: torch.nn.Module, shape: tuple[int, ...], *, quantised: bool = False) -> Any:
    """A module as an opened ONNX file.

    Args:
        module: Takes (N, C, H, W).
        shape: Of an image, (1, C, H, W).
        quantised: Quantise it to int8 (QDQ) with ONNX Runtime's own tool.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.onnx"
        names = {"input_names": ["image"], "output_names": ["scores"]}
        axes = {"image": {0: "n"}, "scores": {0: "n"}}
        torch.onnx.export(
            module, (torch.zeros(shape),), path, dynamo=False, dynamic_axes=axes, **names
        )
        if quantised:
            path = _quantised(path, shape)
        size = [shape[2], shape[3]]
        recipe = {"size": size, "channels": "RGB" if shape[1] == 3 else "GRAY"}
        return inspector.load(path, device="cpu", preprocess=recipe)


class _Pictures:
    """Calibration pictures: every cell in a colour of its own, at full strength."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        hues = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (8, shape[2] // 8, shape[3] // 8))]
        images = hues.repeat(8, 1).repeat(8, 2).transpose(0, 3, 1, 2)
        self.waiting = [{"image": np.ascontiguousarray(image[None])} for image in images]

    def get_next(self) -> dict[str, Array] | None:
        """The next picture; None behind the last."""
        return self.waiting.pop() if self.waiting else None


def _quantised(path: Path, shape: tuple[int, ...]) -> Path:
    from onnxruntime import quantization

    class Reader(_Pictures, quantization.CalibrationDataReader):
        pass

    target = path.with_name("quantised.onnx")
    quantization.quantize_static(path, target, Reader(shape))
    return target


def maps(
    case: Any, methods: Sequence[str] = METHODS, *, quantised: bool = False
) -> Mapping[str, Found]:
    """The answers of several methods to one case, by their names without options.

    Args:
        case: A `Unit`, or another case with ``module``, ``image`` and ``target``.
        methods: As `inspector explain` takes them.
        quantised: Ask the quantised twin of the network.
    """
    model = opened(case.module, tuple(case.image.shape), quantised=quantised)
    images, found = case.image.numpy(), {}
    for method in methods:
        name = method.partition(":")[0]
        try:
            run = ExplainRun(model, [method], str(case.target), None, None)
            values = run.forward(images)
            one = run.maps(images, values, run.targets(values, 1))[0][0]
        except ExplainedError as error:
            found[name] = Found(None, str(error))
            continue
        if not isinstance(one, Map):
            found[name] = Found(None, str(one.error))
            continue
        size = (images.shape[2], images.shape[3])
        drawn = Heatmap.of(one.attribution, Geometry.identity(size)).values
        found[name] = Found(drawn, "; ".join(one.attribution.notes))
    return found


def heatmap(case: Any, method: str, *, quantised: bool = False) -> Array:
    """The map of one method.

    Raises:
        ValueError: It is refused.
    """
    found = next(iter(maps(case, [method], quantised=quantised).values()))
    if found.values is None:
        raise ValueError(found.said)
    return found.values
