"""Why cells of this project's own methods are red: by what the method is defined to be.

A red cell without a reason here is a fault; ``tests/conformance/test_truth.py`` says so.
"""

__all__ = ["reason_of"]

_CHANNELS = "a map is weighed as a whole, and the head reads its places apart"
_MAGNITUDE = "a magnitude says that the score is sensitive there, not which way"
_SLOPE = "the slope at the picture itself: what is saturated has none"
_COUPLED = "the gate's slope is small where it is open: to first order green gets less than half"

_REASONS: dict[str, dict[str, str]] = {
    "gradient": {
        "xor suppressor residual shared functional": _MAGNITUDE,
        "silu": f"{_MAGNITUDE}; a smooth activation has a slope at every grey pixel too",
        "nothing": _MAGNITUDE,
        "saturation": _SLOPE,
        "gate": _COUPLED,
    },
    "smooth-grad": {
        "*": "noise switches ReLUs of grey pixels on, whose slopes remain in the magnitude",
    },
    "guided-backprop": {"saturation": _SLOPE, "gate": _COUPLED},
    "deconvnet": {"*": "behind a mean it has no switches: the same map for every picture"},
    "input-x-gradient": {"saturation": _SLOPE, "gate": _COUPLED},
    "lrp-epsilon-plus": {"gate": "gates take no relevance, by the rule of the paper"},
    "attn-lrp": {
        "gate": "a product shares by halves, and the gate's half goes to its bias in part"
    },
    "cam": {"gate": "the gate is part of the maps that are pooled: it has no place in them"},
    "eigen-cam": {"*": "it does not ask what the score reads"},
    "ablation-cam": {
        "grid": _CHANNELS,
        "or xor": "a colour is taken out alone, and the other one keeps the score",
        "silu": "the whole map is taken out, with the small negative values of grey pixels",
    },
    "score-cam": {
        "grid": _CHANNELS,
        "and": "a colour is shown alone, and AND needs both",
        "xor": "a colour is shown alone, so blue counts for the class as red does",
    },
    "recipro-cam": {
        "and": "a place is shown alone, and AND needs both",
        "xor": "a place is shown alone, so blue counts for the class as red does",
    },
    "occlusion": {
        "or": "one cell is hidden at a time, and the other one keeps the score",
        "xor": "red hidden leaves blue, which counts as well: the drops are 0 and below",
    },
    "rise": {
        "*": "masks are as wide as a cell and the mean over all of them is taken off: what lies "
        "beside the evidence gets some of it",
    },
}
_GATED = "the gate is computed from pooled maps: at the layer behind it, green has no place"
_SATURATED = {"saturation": _SLOPE, "gate": _GATED}
for _name in ("grad-cam", "grad-cam++", "x-grad-cam", "hires-cam", "layer-cam", "guided-grad-cam"):
    _REASONS[_name] = dict(_SATURATED)
for _name in ("grad-cam", "grad-cam++", "x-grad-cam"):
    _REASONS[_name]["grid"] = _CHANNELS
for _name in ("ablation-cam", "score-cam", "recipro-cam", "eigen-cam"):
    _REASONS.setdefault(_name, {})["gate"] = _GATED


def reason_of(method: str, unit: str) -> str:
    """Why a method's map of a unit is wrong by its definition; empty where it is not."""
    name = unit.partition(",")[0]
    own = _REASONS.get(method, {})
    for units, why in own.items():
        if name in units.split():
            return why
    return own.get("*", "")
