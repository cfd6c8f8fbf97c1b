"""Which methods work on a model: `inspector check` draws one map per method of a probe image.

`explain` itself decides, so that the two agree: what it refuses of every probe is refused.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from converters.errors import out_of_memory
from converters.graph import Node
from converters.graph.activations import data_nodes
from converters.graph.operators import facts
from inspector.errors import ExplainedError, LimitExceeded, MethodRefused
from inspector.explain import Explainer, attempts
from inspector.methods import Method, methods
from inspector.network.outputs.score_tensors import candidates
from inspector.photos.geometry import Geometry
from inspector.tasks import Sample
from inspector.verify.subject import SEED, noise

__all__ = ["method_verdicts", "probe_target", "verdicts"]

Array = np.ndarray[Any, Any]

PROBES = ((SEED, 1.0), (SEED + 1, 0.25))
"""Seed and contrast of the probe images; one of them has to give a map."""

LONGEST, MOST_WEIGHTED = 10_000, 2000
"""Nodes, and nodes with weights among them, of the longest network that is tried."""


def method_verdicts(explainer: Explainer) -> dict[str, str]:
    """For each method, "works" or why it is refused, by drawing a map of a probe image.

    Networks longer than anybody trains are not run: "not tried" is said of each method.

    Gradient methods need the twin (and so torch) and the model's certificate, which is kept.

    Args:
        explainer: The opened model.
    """
    found = dict(verdicts(explainer))
    return {name: found[name] for name in methods()}


def verdicts(explainer: Explainer) -> Iterator[tuple[str, str]]:
    """Yield each method with its verdict as soon as it is known; see ``method_verdicts``.

    What takes long comes late, so that a clock that ends the trial leaves out little.

    Args:
        explainer: The opened model.
    """
    nodes = data_nodes(explainer.graph)
    if why := _too_long(nodes):
        yield from dict.fromkeys(methods(), f"not tried: {why}").items()
        return
    groups: dict[int, list[str]] = {}
    for name, one in methods().items():
        groups.setdefault(_rank(one), []).append(name)
    for _, names in sorted(groups.items()):
        yield from _tried(explainer, names).items()


def _rank(method: Method) -> int:
    """How late a method is tried: forward passes, the tail's gradients, the network's, torch's."""
    if not method.differentiates:
        return 0
    if method.by_twin:
        return 3
    return 2 if method.needs & {"input-gradient", "attention"} else 1


def _too_long(nodes: Sequence[Node]) -> str:
    """Why the methods are not tried on a network; empty where they are."""
    weighted = sum(facts(node).weighted for node in nodes)
    for what, count, most in (
        ("nodes", len(nodes), LONGEST),
        ("nodes with weights", weighted, MOST_WEIGHTED),
    ):
        if count > most:
            return (
                f"{count:,} {what}, and at most {most:,} are run on trial; "
                "`inspector explain` tries it"
            )
    return ""


def _tried(explainer: Explainer, names: Sequence[str]) -> dict[str, str]:
    """The verdicts on some methods, which are tried together."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recipe = explainer.preprocessing.preprocess
        images = [
            noise(explainer.model, recipe, seed=seed, contrast=contrast).image
            for seed, contrast in PROBES
        ]
        try:
            target = probe_target(explainer, images[0])
        except ExplainedError as error:
            return dict.fromkeys(names, _refused(error))
        # A few windows show as well as hundreds whether a method works.
        half = max(1, min(images[0].shape[2:]) // 2)
        texts = {f"{name}:{methods()[name].quick.format(half=half)}": name for name in names}
        refused: dict[str, str] = {}
        waiting = list(texts)
        for image in images:
            found = _within_memory(explainer, image, waiting, target) if waiting else {}
            waiting = [text for text, error in found.items() if error is not None]
            for text in waiting:
                refused.setdefault(texts[text], _refused(cast("ExplainedError", found[text])))
    works = set(texts.values()) - {texts[text] for text in waiting}
    return {name: "works" if name in works else refused[name] for name in names}


def _within_memory(
    explainer: Explainer, image: Array, requests: Sequence[str], target: str
) -> dict[str, ExplainedError | None]:
    """What each method fails at: tried together, or one by one where that takes too much memory."""
    try:
        return dict(attempts(explainer, image, requests, target))
    except Exception as error:
        if not isinstance(error, LimitExceeded) and not out_of_memory(error):
            raise
    # Outside of the handler, whose traceback holds on to what the attempt has allocated.
    if len(requests) == 1:
        return {requests[0]: LimitExceeded("memory ran out", hint="raise the limit with --memory")}
    found: dict[str, ExplainedError | None] = {}
    for request in requests:
        found |= _within_memory(explainer, image, [request], target)
    return found


def probe_target(explainer: Explainer, image: Array) -> str:
    """What the probes explain: ``top1``, or the largest element of an output, as a user says it.

    Args:
        explainer: The opened model.
        image: (1, C, H, W), preprocessed.

    Raises:
        MethodRefused: No output holds floating point numbers.
        ModelRefused: ONNX Runtime cannot run the model.
    """
    if explainer.scores.classifier and explainer.sure_reading is None:
        return "top1"
    if explainer.sure_reading is not None and explainer.sure_reading.task == "detector":
        values = explainer.forward(image, explainer.sure_reading.outputs)
        size = (image.shape[2], image.shape[3])
        sample = Sample({n: v[0] for n, v in values.items()}, Geometry.identity(size))
        if explainer.sure_reading.items(sample):
            return "top1"
    read = () if explainer.sure_reading is None else explainer.sure_reading.tensors
    for name in dict.fromkeys((*candidates(explainer.graph), *read)):  # ArgMax hides its scores
        found = explainer.forward(image, [name])[name]
        if isinstance(found, np.ndarray) and found.dtype.kind == "f" and found[0].size:
            best = int(np.nan_to_num(found[0], nan=-np.inf).argmax())
            place = np.unravel_index(best, found[0].shape)
            return f"{name}[{','.join(str(int(i)) for i in place)}]"
    raise MethodRefused("no output of the model is a tensor of floating point numbers")


def _refused(error: ExplainedError) -> str:
    return f"refused: {error.what}" + (f" ({error.where})" if error.where else "")
