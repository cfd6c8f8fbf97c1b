"""The certificate as data: checks, what each found, and the verdict that follows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["SCHEMA", "Certificate", "Check", "Status", "Verdict", "finite"]

SCHEMA = 1
"""Version of the JSON document; a field that changes its meaning raises it."""

Status = Literal["pass", "fail", "undecided", "not applicable", "report"]


@dataclass(frozen=True)
class Check:
    """One question to the twin, and the answer.

    Attributes:
        name: Short and unique, as the table shows it.
        status: ``undecided`` where the question applies and the measurement cannot tell;
            ``report`` for figures that no verdict hangs on.
        text: One sentence: the figures, or why the question does not apply.
        figures: Plain data.
    """

    name: str
    status: Status
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; an infinite or undefined figure becomes a word."""
        return {
            "name": self.name,
            "status": self.status,
            "text": self.text,
            "figures": finite(self.figures),
        }


@dataclass(frozen=True)
class Verdict:
    """What ``explain`` needs to know of a certificate.

    Attributes:
        passed: Whether gradients of the twin may be trusted; None when that is not known: a
            check could not be decided, or the twin or ONNX Runtime cannot run the model.
        text: One sentence.
        source: Whether it was computed now or found in the cache.
    """

    passed: bool | None
    text: str
    source: Literal["cached", "now"]


@dataclass(frozen=True)
class Certificate:
    """How far the twin can be trusted to be the model.

    The same file, versions and images give the same document: no date, nothing of the machine.

    Attributes:
        model: Name and SHA-256 of the file, external data included.
        kind: ``float32``, ``float16`` or ``quantised``: by which measure it was judged.
        scope: ``quick`` or ``full``.
        inputs: What was fed: names of probes and photos, with photos' hashes.
        target: Whose gradient was taken, and why.
        tolerances: By name.
        versions: From ``inspector.versions``.
        checks: In the order in which they are shown.
    """

    model: Mapping[str, str]
    kind: str
    scope: str
    inputs: tuple[Mapping[str, Any], ...]
    target: str
    tolerances: Mapping[str, float]
    versions: Mapping[str, str]
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Literal["pass", "fail", "limited"]:
        """``fail`` if a check failed, ``limited`` if one could not be decided, else ``pass``."""
        statuses = {check.status for check in self.checks}
        if "fail" in statuses:
            return "fail"
        return "limited" if "undecided" in statuses else "pass"

    @property
    def passed(self) -> bool | None:
        """Whether every check passed; None where none failed and one could not be decided."""
        return {"pass": True, "fail": False, "limited": None}[self.verdict]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is not a plain pass: what failed, is undecided, or does not apply."""
        order = ("fail", "undecided", "not applicable")
        return tuple(
            f"{check.name}: {check.text}"
            for status in order
            for check in self.checks
            if check.status == status
        )

    @property
    def text(self) -> str:
        """The verdict in one sentence, for a report."""
        scope = "" if self.scope == "full" else f", {self.scope} check"
        worst = next((c.text for c in self.checks if c.name == "forward"), "")
        if self.verdict == "pass":
            return f"the twin agrees with ONNX Runtime ({worst}{scope})"
        word = "fails" if self.verdict == "fail" else "passes as far as it can be tested"
        wanted = "fail" if self.verdict == "fail" else "undecided"
        why = "; ".join(f"{c.name}: {c.text}" for c in self.checks if c.status == wanted)
        return f"the twin {word}{scope}: {why}"

    def check(self, name: str) -> Check:
        """One check by name.

        Raises:
            KeyError: There is none.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "schema": SCHEMA,
            "model": dict(self.model),
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "text": self.text,
            "kind": self.kind,
            "scope": self.scope,
            "inputs": [dict(item) for item in self.inputs],
            "target": self.target,
            "tolerances": dict(self.tolerances),
            "versions": dict(self.versions),
            "checks": [check.to_dict() for check in self.checks],
        }


def finite(value: Any) -> Any:
    """Plain data with floats that JSON cannot hold spelled out."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "infinite" if math.isinf(value) else "undefined"
    return value
