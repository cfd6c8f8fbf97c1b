"""The verdict on a conversion: what differs, where, by how much, and what can be done."""

from math import ceil, floor, log10

from converters.conversion.limits import least_top1
from converters.conversion.record import TOLERANCE, ConversionRecord, Trial
from converters.errors import ConversionFailed

__all__ = ["require_agreement"]

_REPORT = "report it with the file, or export the network to ONNX from its own framework"
_MOST_ACCEPTED = 0.5
"""Differences above it have another cause than rounding: no tolerance is named for them."""
_DIFFERENT = "the ONNX file computes something else than the source: "


def require_agreement(record: ConversionRecord, source: str) -> None:
    """Refuse a file that computes something else than its source.

    Args:
        record: The comparison.
        source: The source, for the message.

    Raises:
        ConversionFailed: Outputs cannot be compared, differ by more than is accepted, or differ by
            the same on all inputs, or in the mean by more than rounding does; or a quantised source
            names other classes.

    Example:
        >>> from pathlib import Path
        >>> from converters.conversion.record import ConversionRecord, Trial
        >>> from converters.conversion.verdict import require_agreement
        >>> trials = (Trial("random, batch of 1", 1, 1e-6, 1e-7, 1.0),)
        >>> record = ConversionRecord(
        ...     Path("m.onnx"), "m.keras", "", "Keras", {}, trials, False, {}, 0
        ... )
        >>> require_agreement(record, "m.keras")
    """
    broken = next((trial for trial in record.trials if trial.why), None)
    if broken is not None:
        raise ConversionFailed(
            f"{_DIFFERENT}{broken.why} (inputs: {broken.name})", where=source, hint=_REPORT
        )
    if record.offset:
        raise ConversionFailed(
            "the ONNX file differs from the source by the same amount on every input "
            f"({record.offset:.1e} of the outputs' peak), which rounding does not do: a constant "
            "such as a bias was lost or changed",
            where=source,
            hint="report it with the file; --tolerance accepts a difference that you chose",
        )
    if not all(trial.worst <= trial.limit for trial in record.trials):
        raise ConversionFailed(_DIFFERENT + _values(record), where=source, hint=_advice(record))
    if record.drift:
        raise ConversionFailed(
            f"{_DIFFERENT}{record.drift}: more than rounding does, though no value is further "
            f"apart than theirs ({record})",
            where=source,
            hint=f"{_REPORT}; --tolerance accepts a difference that you chose",
        )
    top1 = 1.0 if record.top1 is None else record.top1  # 0.0 is an agreement too: none
    least = least_top1(record)
    if record.quantised and top1 < least:
        samples = sum(trial.samples for trial in record.trials)
        raise ConversionFailed(
            f"{_DIFFERENT}both name the same class on {top1:.0%} of {samples} inputs (a quantised "
            f"source has to on {least:.0%}), though no output differs by more than "
            f"{record.worst:.1e} of its peak",
            where=source,
            hint="compare them on photos that the network is made for: --image PHOTO; or "
            + _REPORT,
        )


def _values(record: ConversionRecord) -> str:
    """The largest difference: output, index and values, by how much, and on which inputs."""
    worst = max(record.trials, key=_excess)
    beyond = sum(not trial.worst <= trial.limit for trial in record.trials)
    at = f"{worst.at}, " if worst.at else ""
    return (
        f"{at}{worst.worst:.1e} of the output's peak apart (inputs: {worst.name}; {beyond} of "
        f"{len(record.trials)} comparisons differ too much); {record}"
    )


def _excess(trial: Trial) -> float:
    """Difference of a trial as a multiple of the limit; infinite where it is not a number."""
    return trial.worst / trial.limit if trial.worst == trial.worst else float("inf")


def _advice(record: ConversionRecord) -> str:
    """What can be done about a difference of values."""
    worst = max(record.trials, key=_excess)
    parts = [f"at most {worst.limit:g} is accepted on such inputs"]
    if record.sensitivity is not None and record.sensitivity > TOLERANCE:
        parts.append(
            f"the source's own outputs change by {record.sensitivity:.1e} where its input changes "
            "by a millionth: it depends on chance, or amplifies rounding"
        )
    if record.worst <= _MOST_ACCEPTED:
        parts.append(
            f"if that is near enough for you, --tolerance {_rounded_up(record.worst):g} accepts it"
        )
    return "; ".join([*parts, f"else {_REPORT}" if len(parts) > 1 else _REPORT])


def _rounded_up(value: float) -> float:
    """The next number of two digits, as a user would type it."""
    unit = 10.0 ** (floor(log10(value)) - 1)
    return float(f"{ceil(value / unit * (1 - 1e-12)) * unit:.2g}")
