"""Limits of the difference between a converted file and its source, by kind of inputs.

Rounding does more to a network on some inputs than on others: noise that drives a quantised network
into its bounds makes its own kernels part further than photos do.  So each kind of inputs has a
limit of its own, and it is measured on inputs of that kind.

The largest difference of a few inputs says little about a network whose kernels part far: a spoilt
file may lie within.  There the mean difference is judged too, which changes less by chance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from converters.conversion.inputs import KINDS
from converters.conversion.record import EQUAL, TOLERANCE, ConversionRecord, Trial

__all__ = ["LEVEL_TOLERANCE", "Limit", "drift", "least_top1", "limits", "usual"]

LEVEL_TOLERANCE = 0.1
"""As ``TOLERANCE``, for a quantised source, in which a value that falls the other way is a level
off."""

_HALF_TOLERANCE = 2.0**-8
"""As ``TOLERANCE``, for a source that computes in float16: eight times its rounding."""

_TOP1_QUANTISED = 0.9
"""Least share of inputs on which a quantised source and its file name the same class."""

_EQUAL_QUANTISED = 0.9
"""As ``EQUAL``, for a quantised source."""

_SENSITIVE, _MOST_SENSITIVE = 10.0, 0.01
"""How many times the source's own change, where its input changes by a millionth, is accepted, and
how much of that at most: every layer rounds, and some networks amplify it in any implementation."""

_MEAN_MARGIN = 1.25
"""How many times the kernels' mean difference that of the file may be."""


@dataclass(frozen=True)
class Limit:
    """What is accepted on one kind of inputs.

    Attributes:
        worst: Largest difference, relative to an output's peak.
        equal: Least share of equal elements of an output of integers that is not judged by its
            values.
    """

    worst: float
    equal: float


def usual(*, quantised: bool, halves: bool = False) -> Limit:
    """What is accepted in any case."""
    if quantised:
        return Limit(LEVEL_TOLERANCE, _EQUAL_QUANTISED)
    return Limit(_HALF_TOLERANCE if halves else TOLERANCE, EQUAL)


def limits(
    kernels: Sequence[Trial],
    changes: Sequence[Trial],
    *,
    quantised: bool,
    halves: bool = False,
    tolerance: float | None = None,
) -> Mapping[str, Limit]:
    """What is accepted, by kind of inputs.

    Args:
        kernels: Comparisons of the source's own two kinds of kernels.
        changes: The source's outputs against those for inputs changed by a millionth.
        quantised: Whether the source's values are integers.
        halves: Whether it computes in float16.
        tolerance: Largest difference that the user accepts; none of the others counts then.

    Returns:
        One limit per kind of ``KINDS``, never below what is accepted in any case.

    Example:
        >>> from converters.conversion.limits import limits
        >>> from converters.conversion.record import Trial
        >>> parted = Trial("random, batch of 1", 1, 0.3, 0.01, 1.0)
        >>> found = limits([parted], [], quantised=True)
        >>> found["random"].worst, found["photo-like"].worst
        (0.3, 0.1)
    """
    least = usual(quantised=quantised, halves=halves)
    found = {}
    for kind in KINDS:
        own = [trial for trial in kernels if trial.kind == kind]
        change = max((trial.worst for trial in changes if trial.kind == kind), default=0.0)
        amplified = min(_SENSITIVE * change, _MOST_SENSITIVE)
        worst = max([least.worst, amplified, *(trial.worst for trial in own)])
        equal = min([least.equal, *(trial.equal for trial in own if trial.equal is not None)])
        found[kind] = Limit(tolerance or worst, equal)
    return found


def drift(trials: Sequence[Trial], kernels: Sequence[Trial]) -> str:
    """A mean difference that the kernels' rounding does not make, in words; empty where none is.

    Args:
        trials: Comparisons of a quantised source and its file.
        kernels: Comparisons of the source's own two kinds of kernels, on the same inputs and on
            further ones of the kind.

    Example:
        >>> from converters.conversion.limits import drift
        >>> from converters.conversion.record import Trial
        >>> kernels = [Trial("random, batch of 1", 1, 0.3, 0.01, 1.0)]
        >>> drift([Trial("random, batch of 1", 1, 0.2, 0.012, 1.0)], kernels)
        ''
        >>> drift([Trial("random, batch of 1", 1, 0.2, 0.04, 1.0)], kernels)[:55]
        'the mean difference is 4.0e-02 of the peak on random in'
    """
    for kind in KINDS:
        file = [trial for trial in trials if trial.kind == kind]
        own = [trial for trial in kernels if trial.kind == kind]
        if not own or all(trial.worst <= LEVEL_TOLERANCE for trial in file):
            continue
        names = {trial.name for trial in file}
        known = max(_mean(own), _mean([trial for trial in own if trial.name in names] or own))
        if not _mean(file) <= _MEAN_MARGIN * known:
            return (
                f"the mean difference is {_mean(file):.1e} of the peak on {kind} inputs, and that "
                f"of its kernels {known:.1e}"
            )
    return ""


def _mean(trials: Sequence[Trial]) -> float:
    """Mean difference over all samples."""
    return sum(t.mean * t.samples for t in trials) / max(sum(t.samples for t in trials), 1)


def least_top1(record: ConversionRecord) -> float:
    """Share of inputs on which a quantised source and its file have to name the same class.

    Where the source's own kernels agree on fewer inputs of a kind, that many are enough on it.
    """
    wanted, samples = 0.0, 0
    for trial in record.trials:
        if trial.top1 is None:
            continue
        own = [t for t in record.kernels if t.kind == trial.kind and t.top1 is not None]
        count = sum(t.samples for t in own)
        share = sum((t.top1 or 0.0) * t.samples for t in own) / count if count else 1.0
        wanted += min(_TOP1_QUANTISED, share) * trial.samples
        samples += trial.samples
    return wanted / samples if samples else _TOP1_QUANTISED
