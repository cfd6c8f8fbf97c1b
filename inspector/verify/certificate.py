"""The certificate as data: checks, what each found, and the verdict that follows."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["SCHEMA", "About", "Certificate", "Check", "Status", "Verdict", "finite", "worst_of"]

SCHEMA = 2
"""Version of the JSON document; a field that changes its meaning raises it."""

Status = Literal["pass", "fail", "undecided", "not applicable", "report"]

About = Literal["twin", "occlusion", "map", "photo", "graph"]
"""What a check judges: the twin, occlusion, one map, the twin on one photo, the gradient graph."""


@dataclass(frozen=True)
class Check:
    """One question to the twin, and the answer.

    Attributes:
        name: Short and unique, as the table shows it.
        status: ``undecided`` where the question applies and the measurement cannot tell;
            ``report`` for figures that no verdict hangs on.
        text: One sentence: the figures, or why the question does not apply.
        figures: Plain data.
        about: What it judges; only what is found of the twin and of occlusion is kept.
    """

    name: str
    status: Status
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    about: About = "twin"

    def to_dict(self) -> dict[str, Any]:
        """Plain data; an infinite or undefined figure becomes a word."""
        return {
            "name": self.name,
            "status": self.status,
            "text": self.text,
            "about": self.about,
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
        occlusion: What is wrong with occlusion; empty where nothing is known to be.
    """

    passed: bool | None
    text: str
    source: Literal["cached", "now"]
    occlusion: str = ""


def worst_of(verdicts: Iterable[Verdict]) -> dict[str, Any] | None:
    """The worst of some verdicts as plain data; None where none was asked for."""
    order = {False: 0, None: 1, True: 2}
    found = min(verdicts, key=lambda one: order[one.passed], default=None)
    return None if found is None else {"passed": found.passed, "text": found.text}


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
        tensor: The tensor of that target; empty where there is none.
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
    tensor: str = ""

    @property
    def verdict(self) -> Literal["pass", "fail", "limited"]:
        """``fail`` if a check failed, ``limited`` if one could not be decided, else ``pass``."""
        return _verdict(self.checks)

    @property
    def passed(self) -> bool | None:
        """Whether every check passed; None where none failed and one could not be decided."""
        return _PASSED[self.verdict]

    @property
    def kept(self) -> Verdict:
        """What holds for the model whatever the photo: the verdict on the twin and on occlusion."""
        twin = [check for check in self.checks if check.about == "twin"]
        wrong = [c for c in self.checks if c.about == "occlusion" and c.status == "fail"]
        return Verdict(
            _PASSED[_verdict(twin)], self._sentence(twin), "now", "; ".join(map(_said, wrong))
        )

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is not a plain pass: what failed, is undecided, or does not apply."""
        order = ("fail", "undecided", "not applicable")
        return tuple(
            _said(check) for status in order for check in self.checks if check.status == status
        )

    @property
    def text(self) -> str:
        """The verdict in one sentence, for a report."""
        return self._sentence(self.checks)

    def _sentence(self, checks: Sequence[Check]) -> str:
        scope = "" if self.scope == "full" else f", {self.scope} check"
        worst = next((c.text for c in checks if c.name == "forward"), "")
        verdict = _verdict(checks)
        if verdict == "pass":
            empty = next((f"; {c.text}" for c in checks if c.figures.get("zero at")), "")
            return f"the twin agrees with ONNX Runtime ({worst}{scope}){empty}"
        wanted = "fail" if verdict == "fail" else "undecided"
        open_ = [check for check in checks if check.status == wanted]
        # A twin that agrees is not accused of what occlusion or a map does.
        about = {check.about for check in open_}
        word = "fails" if verdict == "fail" else "passes as far as it can be tested"
        who = "the twin" if about & {"twin", "photo"} or verdict == "limited" else "the model"
        return f"{who} {word}{scope}: {'; '.join(map(_said, open_))}"

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


_PASSED = {"pass": True, "fail": False, "limited": None}


def _verdict(checks: Iterable[Check]) -> Literal["pass", "fail", "limited"]:
    statuses = {check.status for check in checks}
    if "fail" in statuses:
        return "fail"
    return "limited" if "undecided" in statuses else "pass"


def _said(check: Check) -> str:
    return f"{check.name}: {check.text}"


def finite(value: Any) -> Any:
    """Plain data with floats that JSON cannot hold spelled out."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "infinite" if math.isinf(value) else "undefined"
    return value
