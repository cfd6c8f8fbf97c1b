"""A target that a function computes from the network's outputs: ``lambda s: s[:, 3] - s[:, 5]``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.errors import UsageError
from inspector.network.classifier.scores import Scores
from inspector.printable import clean_text
from inspector.target.number import Target

__all__ = ["FunctionSpec", "FunctionTarget"]

Function = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class FunctionTarget(Target):
    """One number per sample that a caller's function makes of a tensor.

    Attributes:
        function: From a torch tensor (N, ...) to a torch tensor (N,), differentiable.
    """

    function: Function | None = None

    @property
    def linear(self) -> bool:
        """Nothing is known of the function."""
        return False

    def _of(self, array: Any) -> Any:
        """The function's value for each sample; see ``Target.of``.

        Raises:
            UsageError: The function fails, or does not return one number per sample.
        """
        if not isinstance(array, np.ndarray):
            return self._called(array)
        import torch

        with torch.no_grad():
            return self._called(torch.from_numpy(np.array(array))).numpy()

    def _slope(self, array: Any) -> Any:
        """Derivative of the function by the tensor, by PyTorch; see ``Target.slope``."""
        import torch

        given = torch.from_numpy(np.array(array, np.float32)).requires_grad_()
        found = self._called(given)
        if not found.requires_grad:
            return np.zeros(array.shape, np.float32)
        (slope,) = torch.autograd.grad(found.sum(), given, allow_unused=True)
        return np.zeros(array.shape, np.float32) if slope is None else slope.numpy()

    def _called(self, values: Any) -> Any:
        """The function's value, checked."""
        import torch

        try:
            found = self.function(values) if self.function else None
        except Exception as error:  # a caller's function raises anything
            said = " ".join(str(error).split())[:200]
            raise UsageError(
                f"the target's function fails on values of shape {tuple(values.shape)} "
                f"({type(error).__name__}: {said})",
                hint=f"it gets {clean_text(self.tensor)!r} (N, ...) as a torch tensor",
            ) from error
        if isinstance(found, torch.Tensor) and found.is_complex():
            raise UsageError(
                "the target's function returns complex numbers", hint="return their .abs() or .real"
            )
        if not isinstance(found, torch.Tensor) or tuple(found.shape) != (len(values),):
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise UsageError(
                f"the target's function returns {shape} for values of shape {tuple(values.shape)}",
                hint="return one number per image, (N,): lambda scores: scores[:, 3]",
            )
        return found if self.sign > 0 else -found


@dataclass(frozen=True, eq=False)
class FunctionSpec:
    """A function as a target: known before the pass, the same for every photo.

    Attributes:
        function: The caller's.
        tensor: What it is called with.
    """

    function: Function
    tensor: str

    @classmethod
    def of(cls, function: Function, scores: Scores) -> "FunctionSpec":
        """A function of the classifier's scores, or of the only output.

        Raises:
            UsageError: There are several outputs, and none is known to be scores of classes.
        """
        outputs = [value.name for value in scores.outputs]
        if not scores.classifier and len(outputs) != 1:
            shown = ", ".join(map(clean_text, outputs[:6]))
            raise UsageError(
                f"a function as the target, of a model with {len(outputs)} outputs ({shown})",
                hint="name an element instead, OUTPUT[i,j,...], or a sum of elements",
            )
        return cls(function, scores.tensor if scores.classifier else outputs[0])

    def tensors(self) -> tuple[str, ...]:
        """The tensor that the function is called with."""
        return (self.tensor,)

    def together(self) -> tuple[tuple[str, ...], ...]:
        """Tensors of the one target."""
        return ((self.tensor,),)

    def resolve(self, values: Any = None) -> tuple[Target, ...]:
        """The one target of each photo."""
        del values
        name = str(getattr(self.function, "__name__", type(self.function).__name__))
        label = clean_text(name.strip("<>"))
        return (FunctionTarget(self.tensor, (), label, function=self.function),)
