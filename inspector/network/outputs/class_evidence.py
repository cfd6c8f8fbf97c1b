"""What a file says of its numbers: class scores, or something else.

Numbers without a softmax, a sigmoid or class names behind them may be an embedding, angles or
coordinates.  Names and counts are signals; one alone may be chance, two are taken for an answer.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspector.network.classifier.scores import Scores

__all__ = ["class_evidence", "is_score_like"]

KNOWN_COUNTS = {10, 43, 100, 101, 102, 200, 256, 257, 365, 1000, 1001, 1008, 10450, 21841, 21843}
"""Classes of well-known data sets, with and without a background class."""

_CLASS_NAME = re.compile(
    r"logit|prob|softmax|class|score|predict|categor|label|(^|[^a-z])cls([^a-z]|$)", re.IGNORECASE
)
_DATA_SET = re.compile(
    r"imagenet|ilsvrc|mnist|cifar|svhn|gtsrb|traffic.?sign|classif|places365|caltech", re.IGNORECASE
)
_OTHER_NAME = re.compile(
    r"embed|feature|descriptor|landmark|keypoint|coord|angle|pose|yaw|pitch|roll(?![a-z])|box"
    r"|offset|point|depth|regress|distance|loc(?![a-z])|vector|(^|[^a-z])ages?([^a-z]|$)",
    re.IGNORECASE,
)
_SCORE_NAME = re.compile(
    r"score|conf|prob|class|logit|heat|obj|(^|[^a-z])cls([^a-z]|$)", re.IGNORECASE
)
_TASK = re.compile(r"classif", re.IGNORECASE)


def class_evidence(
    scores: "Scores", metadata: Mapping[str, str] | None = None, file_name: str = ""
) -> tuple[str, ...]:
    """Signals that scores without softmax, sigmoid or names are those of classes.

    Args:
        scores: The scores.
        metadata: The model's ``metadata_props``.
        file_name: Name of the file.

    Returns:
        The signals in words; empty where there are fewer than two, or where a name says that the
        numbers are something else.  A task in the metadata is enough alone.
    """
    names = (scores.output, scores.tensor)
    if _OTHER_NAME.search(scores.output):
        return ()
    told = [
        f"metadata {key!r}"
        for key, value in (metadata or {}).items()
        if key.lower() in {"task", "pipeline_tag", "problem_type"} and _TASK.search(value)
    ]
    found = []
    if any(_CLASS_NAME.search(name) for name in names):
        found.append(f"the name {scores.output!r}")
    if scores.classes in KNOWN_COUNTS:
        found.append(f"{scores.classes} numbers, as many as a well-known data set has classes")
    graph = scores.graph.proto.name if scores.graph is not None else ""
    if _DATA_SET.search(graph) or _DATA_SET.search(file_name):
        found.append("the model's own name")
    return tuple(told + found) if told or len(found) > 1 else ()


def is_score_like(name: str) -> int:
    """How much an output's name speaks for scores: 1, 0, or -1 for coordinates and the like."""
    if _OTHER_NAME.search(name):
        return -1
    return 1 if _SCORE_NAME.search(name) else 0
