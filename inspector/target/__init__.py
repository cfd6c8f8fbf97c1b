"""What is explained: one number of the network per sample, and how a user names it.

A target is an element (or a sum of elements) of one tensor, so a class of a classifier and a box of
a detector are the same thing to everybody else.
"""

from inspector.network.classifier.scores import Scores, find_scores, is_doubtful
from inspector.target.combined import Sum, parts_of, pieces_with_sums, summed
from inspector.target.function import FunctionSpec
from inspector.target.item_words import either, tasks_named
from inspector.target.number import Sampled, Target, scores_of
from inspector.target.plain_words import plain_targets, target_text, target_texts
from inspector.target.spec import (
    TargetSpec,
    best_targets,
    element_target,
    names_elements,
    parse_target,
)

__all__ = [
    "FunctionSpec",
    "Sampled",
    "Scores",
    "Sum",
    "Target",
    "TargetSpec",
    "best_targets",
    "either",
    "element_target",
    "find_scores",
    "is_doubtful",
    "names_elements",
    "parse_target",
    "parts_of",
    "pieces_with_sums",
    "plain_targets",
    "scores_of",
    "summed",
    "target_text",
    "target_texts",
    "tasks_named",
]
