"""How is a map made?  One attribution method per file, declared with ``@method``.

The declaration says what the method needs of the network; nobody asks a method for its name.
Keyword-only parameters are its options: the command line parses them, ``--help`` and the
documentation list them, and the report records them.

    needs              what it gets                                     from
    activation         A, the chosen layer (N, C, h, w)                 one ONNX Runtime pass
    gradient           g = dS/dA at that layer, (N, C, h, w)            the engine, of the tail
    input-gradient     the signal at the input under a backward rule    the engine, of the whole
    head               the linear head and the maps that it pools       the graph, the same pass
    forward            scores of other images                           further passes
    boxes              boxes of other images, to find the explained    the same passes
    tail               scores of other values of the layer              the engine, of the tail
    attention          weights of every self-attention, and dS/d(them)  the same pass, the engine
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from converters.plain_values import quoted
from inspector.declarations import Option, options_of
from inspector.engines.relevance import RELEVANCE_RULES
from inspector.errors import NotFinite, UnknownMethod, UsageError, nearest

if TYPE_CHECKING:
    from inspector.evidence import Evidence

__all__ = [
    "Method",
    "MethodName",
    "Methods",
    "Need",
    "Request",
    "configured",
    "method",
    "methods",
    "parse_request",
    "parse_requests",
]

Function = Callable[..., np.ndarray[Any, Any]]

Need = Literal[
    "activation", "gradient", "input-gradient", "head", "forward", "boxes", "tail", "attention"
]

MethodName = Literal[
    "ablation-cam",
    "attention-gradient",
    "attention-rollout",
    "attn-lrp",
    "cam",
    "d-rise",
    "deconvnet",
    "eigen-cam",
    "grad-cam",
    "grad-cam++",
    "gradient",
    "guided-backprop",
    "guided-grad-cam",
    "hires-cam",
    "input-x-gradient",
    "integrated-gradients",
    "layer-cam",
    "lrp-epsilon-plus",
    "occlusion",
    "recipro-cam",
    "rise",
    "score-cam",
    "smooth-grad",
    "x-grad-cam",
]
"""Names of all methods, for type checkers; a test holds them against the registry."""

OTHER_THRESHOLD = 0.15
"""Share of a map's maximum above which a box is drawn, where the paper says none (Grad-CAM's)."""


@dataclass(frozen=True)
class Method:
    """One attribution method.

    Attributes:
        name: As typed after ``-m``.
        order: Year of the paper; methods are listed in this order.
        space: ``layer``: the function returns (N, h, w); ``input``: (N, C, H, W).
        needs: What it asks of the network; see the table above.
        reduction: How channels (C, H, W) become the one map that is drawn; a key of
            ``heatmap.REDUCTIONS``.
        rule: The backward rule that it applies, if any.
        signed: Whether negative values of the map speak against the target.
        box_threshold: Share of the map's maximum above which the paper draws a box.
        function: Takes an ``Evidence`` and the options.
        cost: What one map costs, in F: one forward pass of the network in ONNX Runtime.
        quick: Options with which one map of a probe image is soon drawn; ``{half}`` stands for
            half of the image's short side in pixels.
        class_specific: Whether the map depends on the target.
        pictures_only: Why it is not defined for signals and volumes; empty where it is.
    """

    name: str
    order: int
    space: Literal["layer", "input"]
    needs: frozenset[Need]
    reduction: str
    rule: str | None
    signed: bool
    box_threshold: float
    function: Function = field(repr=False)
    cost: str = ""
    quick: str = ""
    class_specific: bool = True
    pictures_only: str = ""

    @property
    def differentiates(self) -> bool:
        """Whether it needs an engine, for gradients or the tail; else forward passes are enough."""
        return bool(self.needs & {"gradient", "input-gradient", "tail", "attention"})

    @property
    def by_twin(self) -> bool:
        """Whether its rule is the twin's alone, whichever engine was chosen."""
        return self.rule in RELEVANCE_RULES

    @property
    def through_layer(self) -> bool:
        """Whether it explains through a layer that the user may choose."""
        return "activation" in self.needs

    def unit(self, facts: Mapping[str, Any]) -> str:
        """What the values of a map are.

        Args:
            facts: What the method measured; a ``measure`` is the number that it follows.
        """
        if "measure" in facts:
            return f"change of the {facts['measure']}"
        if self.rule is not None and "lrp" in self.rule:
            return "relevance, in units of the score"
        if self.rule is not None:
            return "signal at the input"
        if "attention" in self.needs:
            return "attention"
        if self.space == "layer":
            return "evidence for the score"
        if not self.differentiates:
            return "effect on the score"
        return "part of the score" if self.reduction == "sum" else "slope of the score"

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def documentation(self) -> str:
        """The whole docstring."""
        return inspect.getdoc(self.function) or ""

    @property
    def options(self) -> dict[str, Option]:
        """Options by name, with defaults and help from the signature and the docstring."""
        return dict(_options_of(self.function))

    def __call__(self, evidence: "Evidence", **options: Any) -> np.ndarray[Any, Any]:
        """Compute the maps of all samples of the evidence.

        Raises:
            NotFinite: The network's numbers leave what the method can compute with.
            InspectorError: What the method itself refuses.
        """
        try:
            return self.function(evidence, **options)
        except (np.linalg.LinAlgError, FloatingPointError, OverflowError) as error:
            raise NotFinite(
                f"{self.name}: {str(error) or type(error).__name__}",
                hint="the network's values are not finite or far too large on this image; check "
                "its preprocessing",
            ) from error


@cache
def _options_of(function: Function) -> Mapping[str, Option]:
    """Options of a method's function; read once, for every map names them."""
    return options_of(function)


@dataclass(frozen=True)
class Request:
    """A method together with the options that the user chose."""

    method: Method
    options: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """Every option's value, defaults included."""
        return dict(self._settings)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        defaults = {name: option.default for name, option in self.method.options.items()}
        return defaults | dict(self.options)

    @cached_property
    def label(self) -> str:
        """Name that tells two requests of one method apart, fit for a file name."""
        changed = {k: v for k, v in self.options.items() if v != self.method.options[k].default}
        words = [f"{key}-{value}" for key, value in sorted(changed.items())]
        return "_".join([self.method.name, *words])


Methods = MethodName | Request | Sequence[MethodName | Request]
"""One method or several, as a caller of the library names them."""

_REGISTRY: dict[str, Method] = {}


def method(
    name: str,
    *,
    order: int,
    space: Literal["layer", "input"],
    needs: Collection[Need],
    reduction: str = "max_abs",
    rule: str | None = None,
    signed: bool = False,
    box_threshold: float = OTHER_THRESHOLD,
    cost: str = "",
    quick: str = "",
    class_specific: bool = True,
    pictures_only: str = "",
) -> Callable[[Function], Function]:
    """Declare the function below as an attribution method; see ``Method`` for the arguments."""

    def keep(function: Function) -> Function:
        _REGISTRY[name] = Method(
            name,
            order,
            space,
            frozenset(needs),
            reduction,
            rule,
            signed,
            box_threshold,
            function,
            cost,
            quick,
            class_specific,
            pictures_only,
        )
        return function

    return keep


@cache
def methods() -> Mapping[str, Method]:
    """All methods by name, in the order of the papers; within a year by their files' names."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    # Not in the order of the registry: a method that was asked for by name was imported first.
    found = sorted(_REGISTRY.values(), key=lambda one: (one.order, one.function.__module__))
    return {one.name: one for one in found}


def _method(name: str) -> Method | None:
    """The method of a name, of which only its own file is imported; None where there is none."""
    module = name.replace("-", "_").replace("+", "_plus")
    if name not in _REGISTRY and module in {one.name for one in pkgutil.iter_modules(__path__)}:
        importlib.import_module(f"{__name__}.{module}")
    return _REGISTRY.get(name) or methods().get(name)


def parse_request(text: str) -> Request:
    """Read ``NAME`` or ``NAME:option=value,option=value``.

    Raises:
        UnknownMethod: no method of that name.
        UsageError: an option that the method does not have, or a value it cannot take.
    """
    name, _, rest = text.partition(":")
    found = _method(name)
    if found is None:
        hint = nearest(name, methods()) or "one of " + ", ".join(methods())
        raise UnknownMethod(f"no method is called {quoted(name)}", hint=hint)
    chosen: dict[str, Any] = {}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        option = found.options.get(key.strip())
        if option is None:
            raise _no_option(found, key.strip())
        if not equals or not value.strip():
            raise UsageError(
                f"method {name}: option {option.name!r} has no value",
                hint=f"write {name}:{option.name}=VALUE",
            )
        chosen[option.name] = option.parse(value.strip())
    return Request(found, chosen)


def configured(name: MethodName, **options: Any) -> Request:
    """A method with options, in the place of its name.

    Args:
        name: The method's name.
        options: Its options; ``inspector explain --help`` lists them.

    Raises:
        UnknownMethod: no method of that name.
        UsageError: an option that the method does not have, or a value it cannot take.

    Example:
        >>> import inspector
        >>> inspector.configured("occlusion", window=8, stride=4).label
        'occlusion_stride-4_window-8'
    """
    found = parse_request(name)
    chosen = {}
    for key, value in options.items():
        option = found.method.options.get(key)
        if option is None:
            raise _no_option(found.method, key)
        chosen[key] = option.parse(str(value))
    return Request(found.method, chosen)


def _no_option(method: Method, key: str) -> UsageError:
    offered = ", ".join(method.options) or "none"
    return UsageError(
        f"method {method.name} has no option {quoted(key)}", hint=f"its options: {offered}"
    )


def parse_requests(texts: str | Request | Iterable[str | Request]) -> list[Request]:
    """Read one method or several, as :func:`parse_request`; what is named twice comes once.

    Raises:
        UnknownMethod: no method of that name.
        UsageError: no method, or an option that cannot be read.
    """
    names = [texts] if isinstance(texts, str | Request) else texts
    if not isinstance(names, Iterable):
        raise UsageError(f"methods: a value of type {type(texts).__name__}", hint=_NAMES)
    requests: dict[str, Request] = {}
    for name in names:
        if not isinstance(name, str | Request):
            raise UsageError(f"methods: a value of type {type(name).__name__}", hint=_NAMES)
        request = parse_request(name) if isinstance(name, str) else name
        requests.setdefault(request.label, request)
    if not requests:
        raise UsageError("no method was asked for", hint=_NAMES)
    return list(requests.values())


_NAMES = "give a method's name, for example grad-cam, or a list of names"
