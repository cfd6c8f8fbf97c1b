"""An audit's comparison with another model, over the same photos."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inspector.audit.data_set import Entry
from inspector.compare import Comparison, compare
from inspector.compare.comparison import require_comparable
from inspector.explain import Explainer
from inspector.opening import Opening

__all__ = ["Reference"]

Progress = Callable[[str, int, int], None]

_LISTED = 100
"""Most photos that are listed by name."""


@dataclass(eq=False)
class Reference:
    """Another model, against which the audited one is compared.

    Attributes:
        a: The reference.
        b: The audited model.
        outputs: Names of the outputs that both have.
    """

    a: Explainer
    b: Explainer
    outputs: tuple[str, ...]

    @classmethod
    def open(
        cls, path: Path, opening: Opening, target: str | None, layer: str | None
    ) -> "Reference":
        """Open the reference and see that the two can be compared.

        Args:
            path: The other model; it is opened with the options of the audited one.
            opening: What opens the audited model.
            target: What is explained.
            layer: Layer that the user named.

        Raises:
            UsageError: They are of different tasks, or have other inputs, outputs or layers.
            InspectorError: The reference is refused.
        """
        a = replace(opening, path=path).open(Explainer)
        b = opening.open(Explainer)
        if layer is not None:
            a.layer_for(layer)
        pairs = require_comparable(a, b, target or "top1")
        return cls(a, b, tuple(pair.a for pair in pairs))

    def compared(
        self,
        entries: Sequence[Entry],
        *,
        method: str | Sequence[str] | None,
        target: str | None,
        layer: str | None,
        seed: int,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """The comparison as the report holds it.

        Args:
            entries: The photos, those that were audited.
            method: One or several, whose maps are compared; None for the default, or for no maps
                where that is refused.
            target: What they explain; None for what is right for the task.
            layer: Layer that the user named.
            seed: Of the intervals and the noise.
            progress: Called with (what, done, total).

        Raises:
            ImageRefused: The reference can read none of the photos.
        """
        found = compare(
            self.a,
            self.b,
            [entry.path for entry in entries],
            method,
            target=target or "top1",
            layer_a=layer,
            layer_b=layer,
            worst=0,
            seed=seed,
            progress=progress,
        )
        return _document(found)


def _document(found: Comparison) -> dict[str, Any]:
    """What the report says of a comparison."""
    model = found.contexts[0]["model"]
    first = found.parting.first
    return {
        "reference": {"name": model["name"], "sha256": model["sha256"]},
        "sentence": found.sentence,
        "photos": len(found.images),
        "refused": [str(error) for error in found.refused[:_LISTED]],
        "parts_at": None if first is None else first.point.name,
        "flipped": [image.name for image in found.flips[:_LISTED]],
        **found.numbers(),
    }
