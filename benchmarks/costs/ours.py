"""This project's rows of the cost table, and the file itself in ONNX Runtime."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from cost_networks import Network
from runs import CHANNELS, MASKS, STRIDE, TARGET, WINDOW, Prepare, Run, counted

import inspector
from inspector.engines.runtime import Runtime
from inspector.evidence.local_forward import LocalForward
from inspector.photos.occluder import windows

__all__ = ["input_rows", "layer_rows", "one_thread", "runner"]

Array = np.ndarray[Any, Any]

BATCHES = 2
"""Batches of positions per call."""


def one_thread() -> None:
    """Have every session of ONNX Runtime that this project makes work on one thread."""
    made = Runtime.__init__

    def narrow(self: Runtime, file: Any, **settings: Any) -> None:
        made(self, file, **settings | {"threads": 1})

    Runtime.__init__ = narrow  # type: ignore[method-assign]


def runner(network: Network) -> Callable[[Array], Array]:
    """The untouched file in ONNX Runtime, at one thread: images to the first output."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        str(network.path), settings, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def layer_rows(network: Network, image: Array) -> dict[str, Prepare]:
    """What prepares the run of each row that needs no gradient of the input, by the row's key."""
    opened = _opened(network)

    def channels() -> float:
        return float(opened.shape_of(opened.layer_for(None)[0].tensor)[1])

    def attribution(method: str, units: Callable[[], float] = lambda: 1) -> Prepare:
        return _attribution(opened, image, method, units)

    return {
        "grad-cam": attribution("grad-cam"),
        "occlusion": lambda: sweep(opened, image),
        "ablation-cam": attribution("ablation-cam", channels),
        # Passes over the photo, and of Score-CAM over an image of nothing, count as one unit each.
        "score-cam": attribution(f"score-cam:channels={CHANNELS}", lambda: CHANNELS + 2),
        "rise": attribution(f"rise:masks={MASKS}", lambda: MASKS + 1),
    }


def input_rows(network: Network, image: Array) -> dict[str, Prepare]:
    """The same of the rows that need one.

    Gradients of the input keep many more tensors of the forward pass than those of a layer, and a
    session that keeps them is slower: both kinds have a model each, as in two programs.
    """
    opened = _opened(network)
    return {
        method: _attribution(opened, image, method) for method in ("guided-backprop", "deconvnet")
    }


def _opened(network: Network) -> Any:
    # A certificate is made once per file, not per map.
    how = {"device": "cpu", "preprocess": "unit", "engine": "auto"}
    return inspector.load(network.path, unverified=True, **how)


def _attribution(
    opened: Any, image: Array, method: str, units: Callable[[], float] = lambda: 1
) -> Prepare:
    target = str(TARGET) if opened.scores.classifier else "top1"
    return lambda: counted(lambda: opened.attribute(image, method, target=target), units())


def sweep(model: Any, image: Array) -> Run:
    """Batches of an occlusion in turn; all of its positions share what is loaded and checked."""
    boxes = list(windows(image.shape[2], image.shape[3], WINDOW, STRIDE))
    reading = model.sure_reading
    names = list(reading.outputs) if reading else [model.scores.tensor]
    model.forward(image, names)  # loads the model itself
    start = time.process_time()
    local = LocalForward(model.model, image[0], boxes, np.zeros(3, np.float32), names)
    once = (time.process_time() - start) / len(boxes)
    batches = list(local.batches(16))
    drawn = np.random.default_rng(0).permutation(len(batches)).tolist()
    order = itertools.cycle(drawn)

    def call() -> float:
        some = [batches[at] for at in itertools.islice(order, BATCHES)]
        for batch in some:
            local([boxes[number] for number in batch], names)
        return float(sum(map(len, some)))

    call()
    return Run(call, once)
