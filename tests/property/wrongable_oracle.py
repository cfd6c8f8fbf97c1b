"""What may be said of a wrong-able network: the map points at the square, or it is refused.

A verdict is one of

    right     drawn, and it points at the square; occlusion equals one image at a time
    said      drawn wrong or empty, and a warning of the right kind stands with it
    refused   an error of the package says why nothing is drawn
    wrong     anything else: silently wrong
"""

import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from wrongable_graphs import Alone, Scene, unit

import inspector
from inspector.errors import ExplainedError
from inspector.methods import methods

LAYER_METHODS = ("cam", "grad-cam", "grad-cam++", "hires-cam")
INPUT_METHODS = ("gradient", "guided-backprop")

EXCUSES = {
    # What a map may be excused with, where it is true of the network.
    "place": r"mirror|transpos|\bcrop|\btile|fold|rows of the batch|cannot be (laid|placed|traced)"
    r"|not (laid|placed|traced)|where .* (lies|lie|looks?) is not known",
    "bypass": r"bypass|part of the score|of the score (does|do) not pass|other paths?",
    "depends": r"does not depend",
    "saturated": r"saturat",
    "weights": r"weights are unreliable",
    "opposite": r"opposite|other side|-top1|negative side",
}

PEAK = 1e-3
"""A map whose values differ by less, relative to the largest, is constant."""

GHOST = 0.9
"""Share of the maximum that no pixel away from the square may reach."""

EXACT = 1e-5


@dataclass(frozen=True)
class Verdict:
    """What became of one method on one scene."""

    word: str
    text: str = ""


def methods_of(scene: Scene) -> list[str]:
    """Methods to ask for."""
    known = methods()
    # Where one unit is four places, its gradient is the same at all four, and rightly so.
    inputs = () if scene.kind == "tiles-in-channels" else INPUT_METHODS
    return [m for m in (*LAYER_METHODS, *inputs, "occlusion") if m in known]


def opened(scene: Scene) -> Any:
    """The scene's network in the tool."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.onnx"
        onnx.save(scene.model, path)
        size = scene.photo.shape[:2]
        recipe = inspector.Preprocess(size=size, resize="squash", interpolation="nearest")
        labels = scene.labels or None
        explainer = inspector.load(path, device="cpu", preprocess=recipe, labels=labels)
        _ = explainer.file.sha256  # the file is gone from here on
        return explainer


def judge(scene: Scene, method: str, explainer: Any = None) -> Verdict:
    """Ask the tool for one map and judge it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            explainer = explainer or opened(scene)
            asked = f"{method}:{_windows(scene)}" if method == "occlusion" else method
            photos = [scene.photo, *scene.others]
            image = explainer.explain(photos, asked, target=scene.target).images[0]
            alone = image
            if scene.others:
                alone = explainer.explain([scene.photo], asked, target=scene.target).images[0]
        except ExplainedError as error:
            if scene.drawn or (method == "occlusion" and not _may_refuse_occlusion(scene)):
                return Verdict("wrong", f"refused without need: {error}")
            return Verdict("refused", str(error))
        except Exception as error:  # noqa: BLE001 - a crash is a finding
            return Verdict("wrong", f"crashed: {type(error).__name__}: {error}"[:200])
    if scene.dice:
        return Verdict("wrong", "drawn, though the network draws random numbers")
    found = image.explanations[0]
    said = [*found.warnings, *image.warnings]
    for test in (_score, _company, _occlusion, _place):
        text = test(scene, method, found, alone.explanations[0])
        if not text:
            continue
        excuse = _excuse(scene, said)
        # No sentence excuses a wrong number, and none a map that depends on its neighbours.
        if excuse and test is _place:
            return Verdict("said", f"{text}; said: {excuse}")
        return Verdict("wrong", f"{text}" + (f" [notes: {'; '.join(said)}]" if said else ""))
    return Verdict("right")


def _windows(scene: Scene) -> str:
    """Fewer windows than the default's on an input this small."""
    side = max(5, min(scene.photo.shape[:2]) // 5)
    return f"window={side},stride={side // 2 + 1}"


def _may_refuse_occlusion(scene: Scene) -> bool:
    return scene.dice or scene.kind in {"flat-output", "cell-output", "mask-output"}


def _excuse(scene: Scene, said: list[str]) -> str:
    for text in said:
        if any(re.search(EXCUSES[key], text, re.IGNORECASE) for key in {*scene.excuses, "weights"}):
            return text
    return ""


def _values(scene: Scene, tensors: list[str]) -> Alone:
    return Alone(scene.model, tensors)


def _score(scene: Scene, method: str, found: Any, alone: Any) -> str:
    """The number that is named is the one that the user meant, of this photo alone."""
    del method, alone
    score, tensor, label = (getattr(found.attribution, n) for n in ("score", "tensor", "label"))
    net = _values(scene, [name for name, _ in scene.numbers])
    true = [net(unit(scene.photo), name, index) for name, index in scene.numbers]
    if scene.opposite:
        turned = label.startswith(("-", "not ")) or re.search(EXCUSES["opposite"], label)
        true = [-true[0], 1 - true[1], *(true if turned else ())]
    scale = max(1.0, *map(abs, true))
    if min(abs(score - value) for value in true) <= 1e-4 * scale:
        return ""
    shown = " or ".join(f"{value:.4g}" for value in true)
    return f"score {score:.4g} of {tensor!r}, the user's number is {shown}"


def _company(scene: Scene, method: str, found: Any, alone: Any) -> str:
    """A photo's map is the same beside others."""
    if not scene.others or (method in AT_THE_INPUT and _at_a_kink(scene)):
        return ""
    mine, own = found.heatmap.values, alone.heatmap.values
    peak = float(np.nanmax(np.abs(own)))
    worst = float(np.nanmax(np.abs(mine - own)))
    if worst <= 1e-3 * max(peak, 1e-9):
        return ""
    return f"the map beside other photos differs by {worst / max(peak, 1e-9):.2g} of its peak"


AT_THE_INPUT = {"gradient", "guided-backprop"}


def _at_a_kink(scene: Scene) -> bool:
    """Whether a ReLU's input is exactly 0 somewhere, as in dark areas without a bias.

    Its slope is then a matter of the last bit, which PyTorch's convolutions round another way in
    a batch; no gradient of this photo is the right one.
    """
    names = [node.input[0] for node in scene.model.graph.node if node.op_type == "Relu"]
    net = Alone(scene.model, names)
    feed = {net.input: unit(scene.photo)[None].astype(np.float32)}
    return any(
        bool((np.abs(value) <= 1e-6 * max(float(np.abs(value).max()), 1e-9)).any())
        for value in (net.session.run(names, feed) if names else ())
    )


def _occlusion(scene: Scene, method: str, found: Any, alone: Any) -> str:
    """The map equals one image at a time."""
    del alone
    if method != "occlusion":
        return ""
    facts = found.facts["occlusion"]
    values = np.squeeze(found.attribution.values)
    net = _values(scene, [name for name, _ in scene.numbers])
    image = unit(scene.photo)
    fill = np.asarray(facts["fill"], np.float32)[:, None, None]
    worst = []
    for name, index in scene.numbers:
        true = brute_force(lambda x: net(x, name, index), image, facts, fill)  # noqa: B023
        if scene.opposite:
            true = -true
        scale = max(float(np.abs(true).max()), abs(net(image, name, index)), 1.0)
        worst.append(float(np.abs(true - values).max()) / scale)
    return "" if min(worst) <= EXACT else f"off by {min(worst):.2g} from one image at a time"


def brute_force(f: Any, image: np.ndarray, facts: Any, fill: np.ndarray) -> np.ndarray:
    """Mean drop per pixel over the windows that cover it, one image at a time.

    Written from the method's description: windows of a side, a step, symmetric about the centre,
    partial at the borders.
    """
    side, step = facts["window"], facts["stride"]
    spans = []
    for length in image.shape[1:]:
        count = max(0, -(-(length - side) // step)) + 1
        first = (length - side - (count - 1) * step) // 2
        spans.append(
            [(max(0, first + i * step), min(length, first + i * step + side)) for i in range(count)]
        )
    total, covered = np.zeros(image.shape[1:]), np.zeros(image.shape[1:])
    base = f(image)
    for a, b in spans[0]:
        for c, d in spans[1]:
            copy = image.copy()
            copy[:, a:b, c:d] = fill
            total[a:b, c:d] += base - f(copy)
            covered[a:b, c:d] += 1
    return total / np.maximum(covered, 1)


def _place(scene: Scene, method: str, found: Any, alone: Any) -> str:
    """The map is not a blank, and its peak lies where the square is."""
    del alone
    heat = found.heatmap.values
    if not np.isfinite(heat).any():
        return "no pixel of the photo is seen"
    if scene.sign < 0:
        return _against(scene, method, heat)
    top, low = float(np.nanmax(heat)), float(np.nanmin(heat))
    if not top > 0:
        return "empty" if top == low else f"no value is positive (lowest {low:.3g})"
    if top - low <= PEAK * top:
        return f"constant {top:.3g}"
    y, x = np.unravel_index(int(np.nanargmax(heat)), heat.shape)
    near = _near(scene, heat.shape, _reach(scene, method, found))
    if not near[y, x]:
        y0, x0, y1, x1 = scene.box
        return f"peak at (x {x}, y {y}), the square is x {x0}..{x1 - 1}, y {y0}..{y1 - 1}"
    # A second peak as high, away from the square.
    far = np.where(near, -np.inf, np.nan_to_num(heat, nan=-np.inf))
    if method != "gradient" and far.max() > GHOST * top:
        b, a = np.unravel_index(int(np.argmax(far)), heat.shape)
        return f"{far.max() / top:.0%} of the peak at (x {a}, y {b}), away from the square"
    return _centre(scene, method, heat)


def _reach(scene: Scene, method: str, found: Any) -> float:
    if method == "occlusion":
        return float(found.facts["occlusion"]["window"])
    return scene.radius + (scene.stride if method in LAYER_METHODS else 1.0)


def _near(scene: Scene, shape: tuple[int, ...], reach: float) -> np.ndarray:
    y0, x0, y1, x1 = scene.box
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = (rows >= y0 - reach) & (rows <= y1 - 1 + reach)
    near: np.ndarray = inside & (columns >= x0 - reach) & (columns <= x1 - 1 + reach)
    return near


def _centre(scene: Scene, method: str, heat: np.ndarray) -> str:
    """Where every part of the square counts alike, the bright part is centred on it."""
    if method not in LAYER_METHODS or not scene.even:
        return ""
    bright = np.nan_to_num(heat, nan=0.0) > 0.5 * float(np.nanmax(heat))
    y, x = (float(np.mean(where)) for where in np.nonzero(bright))
    y0, x0, y1, x1 = scene.box
    away = max(abs(y - (y0 + y1 - 1) / 2), abs(x - (x0 + x1 - 1) / 2))
    allowed = 1.5 + scene.stride / 2
    return (
        ""
        if away <= allowed
        else (
            f"bright part centred at (x {x:.1f}, y {y:.1f}), {away:.1f} pixels from the square's "
            f"centre ({allowed:.1f} allowed)"
        )
    )


def _against(scene: Scene, method: str, heat: np.ndarray) -> str:
    """The square speaks against the target."""
    y0, x0, y1, x1 = scene.box
    inside = heat[y0:y1, x0:x1]
    if method in {"cam", "occlusion"}:
        y, x = np.unravel_index(int(np.nanargmin(heat)), heat.shape)
        near = _near(scene, heat.shape, scene.radius + scene.stride + max(heat.shape) / 7 + 1)
        if not float(np.nanmin(heat)) < 0 or not near[y, x]:
            return f"lowest at (x {x}, y {y}), though the square speaks against the target"
        return ""
    # Grad-CAM++ has no weights below zero: other maps, which may be bright there, are all it shows.
    weighs = method in LAYER_METHODS and method != "grad-cam++"
    if weighs and float(np.nanmean(inside)) > 0.5 * float(np.nanmax(heat)) > 0:
        return "positive in the square, which speaks against the target"
    return ""
