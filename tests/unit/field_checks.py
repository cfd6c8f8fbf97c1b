"""What is asked of a map of a received file: its place, its number, its layer, or a refusal."""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from field_cases import GREEN, RED

import inspector
from converters.errors import ExplainedError
from inspector.errors import ImageRefused, MethodRefused, UnknownTarget

SQUARE = (8, 24, 38, 54)


def refused_well(explainer, error):
    """A refusal names the node."""
    assert names_a_node(explainer, error), error


def painted(size=(64, 64), box=SQUARE, colour=RED, ground=70):
    photo = np.full((*size, 3), ground, np.uint8)
    y0, y1, x0, x1 = box
    photo[y0:y1, x0:x1] = colour
    return photo


def peak_of(explanation):
    heat = explanation.heatmap.values
    y, x = np.unravel_index(int(np.nanargmax(heat)), heat.shape)
    return int(y), int(x)


def is_inside(point, box, margin=1):
    y0, y1, x0, x1 = box
    return y0 - margin <= point[0] < y1 + margin and x0 - margin <= point[1] < x1 + margin


def names_a_node(explainer, error):
    graph = explainer.graph
    names = {name for node in graph.nodes for name in (node.name, *node.outputs) if name}
    return any(repr(name) in str(error) for name in names)


def is_said(report, pattern):
    image = report.images[0]
    texts = [*image.explanations[0].warnings, *image.warnings]
    return any(re.search(pattern, text, re.IGNORECASE) for text in texts)


def points_at(explainer, photo, box, method="grad-cam", target="1", said="(?!)"):
    """The peak lies in the square, or a refusal names the node, or a sentence says why not."""
    try:
        report = explainer.explain(photo, method, target=target)
    except ExplainedError as error:
        refused_well(explainer, error)
        return None
    found = report.explanation
    assert is_said(report, said) or is_inside(peak_of(found), box), f"peak (y, x) {peak_of(found)}"
    return found


def unread_is_uncoloured(found):
    if found is None:
        return
    heat = np.nan_to_num(found.heatmap.values, nan=0.0)
    unread = np.ones((96, 96), bool)
    unread[:65, 31:] = False
    assert np.abs(heat[unread]).max() <= 0.05 * np.abs(heat).max()


BYPASS = r"bypass|of the score|other path|does not depend"


GREEN_SQUARE = (40, 58, 10, 28)


def red_and_green():
    return both_on(painted(box=(10, 24, 40, 54)))


def both_on(photo):
    y0, y1, x0, x1 = GREEN_SQUARE
    photo[y0:y1, x0:x1] = GREEN
    return photo


def noisy(row, column, radius, ground, seed):
    photo = np.random.default_rng(seed).normal(ground, 12, (64, 64, 3))
    rows, columns = np.mgrid[:64, :64]
    photo[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = RED
    return np.clip(photo, 0, 255).astype(np.uint8)


def three_photos():
    photos = noisy(16, 46, 5, 60, 0), noisy(46, 16, 8, 80, 1), noisy(46, 46, 8, 100, 2)
    photos[2][:2, :2] = 255  # which stretches a scale that is taken over the batch
    return photos


def session_of(model, photo, *, optimise=True):
    options = ort.SessionOptions()
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session, photo.astype(np.float32).transpose(2, 0, 1) / np.float32(255)


def by_hand(score, image, facts):
    """Occlusion of a 64x64 image with one image at a time; ``score`` takes (3, H, W)."""
    side, step = facts["window"], facts["stride"]
    count = max(0, -(-(64 - side) // step)) + 1
    first = (64 - side - (count - 1) * step) // 2
    spans = [(max(0, first + i * step), min(64, first + i * step + side)) for i in range(count)]
    total, covered, base = np.zeros((64, 64)), np.zeros((64, 64)), score(image)
    for a, b in spans:
        for c, d in spans:
            copy = image.copy()
            copy[:, a:b, c:d] = np.asarray(facts["fill"], np.float32)[:, None, None]
            total[a:b, c:d] += base - score(copy)
            covered[a:b, c:d] += 1
    return total / covered


def occlusion_is_exact(explainer, model, photos):
    report = explainer.explain(list(photos), "occlusion:window=20,stride=4", target="1")
    found = report.images[0].explanations[0]
    session, image = session_of(model, photos[0])

    def score(x):
        return float(session.run(None, {"image": x[None]})[0][0, 1])

    true = by_hand(score, image, found.facts["occlusion"])
    values = np.squeeze(found.attribution.values)
    assert np.abs(values - true).max() <= 1e-5 * max(1.0, np.abs(true).max())


def same_in_company(explainer, model, photos, method):
    session, image = session_of(model, photos[0])
    true = float(session.run(None, {"image": image[None]})[0][0, 1])
    try:
        beside = explainer.explain(list(photos), method, target="1").images[0].explanations[0]
    except MethodRefused as error:
        refused_well(explainer, error)
        return
    assert beside.attribution.score == pytest.approx(true, rel=1e-4)
    alone = explainer.explain(photos[0], method, target="1").explanation
    peak = np.abs(alone.attribution.values).max()
    assert np.abs(beside.attribution.values - alone.attribution.values).max() <= 1e-4 * peak


def random_photo(size=(64, 64), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def one_meaning(explainer, model, target):
    """Whatever a target means, its printed score and its occluded scores mean the same."""
    photo = random_photo()
    try:
        found = explainer.explain(photo, "occlusion:window=16,stride=8", target=target).explanation
    except ExplainedError:
        return
    session, image = session_of(model, photo)
    name = session.get_inputs()[0].name
    index = tuple(map(int, re.findall(r"\d+", target)))

    def row_or_element(x):
        return float(session.run(None, {name: x[None]})[0][index].sum())

    def of_row_0(x):
        return float(session.run(None, {name: x[None]})[0][(0, *index)])

    meanings = [row_or_element, of_row_0] if len(index) == 1 else [row_or_element]
    score = found.attribution.score
    fitting = [f for f in meanings if f(image) == pytest.approx(score, rel=1e-4, abs=1e-6)]
    assert fitting, f"{target} is {score}, which is none of {[f(image) for f in meanings]}"
    true = by_hand(fitting[0], image, found.facts["occlusion"])
    values = np.squeeze(found.attribution.values)
    assert np.abs(values - true).max() <= 1e-5 * max(1.0, np.abs(true).max())


def hinted(error):
    found = re.search(r"such as (\S+\[[^\]]*\])|elements: (\S+\[[^\]]*\])", str(error))
    return next(filter(None, found.groups())) if found else None


def has_hint(error):
    """A refused target comes with one that can be asked for."""
    assert hinted(error), error


def a_hint_works(explainer, photo):
    try:
        found = explainer.explain(photo, "grad-cam").explanation
    except UnknownTarget as error:
        has_hint(error)
        target = hinted(error)
        found = explainer.explain(photo, "grad-cam", target=target).explanation
    assert np.isfinite(found.attribution.score)


def layer_is(explainer, photo, target, layer):
    report = explainer.explain(photo, "grad-cam", target=target)
    assert report.explanation.attribution.layer == layer
    assert not is_said(report, "no positive evidence") or is_negative(
        explainer, photo, target, layer
    )


def is_negative(explainer, photo, target, layer):
    """No positive evidence is said only where the opposite has some."""
    other = explainer.explain(photo, "grad-cam:counterfactual=yes", target=target, layer=layer)
    return not other.explanation.attribution.empty


def no_percent(explainer, photo):
    assert not explainer.scores.classifier
    try:
        report = explainer.explain(photo, "occlusion:window=16,stride=16")
    except UnknownTarget as error:
        has_hint(error)
        return
    assert all(p["probability"] is None for p in report.images[0].predictions)


def is_a_sequence(explainer):
    assert explainer.sure_reading.task == "sequence"
    with suppress(ImageRefused):  # where no character is read
        report = explainer.explain(random_photo((32, 160)), "occlusion:window=16,stride=16")
        assert len(report.explanations) == len(report.images[0].items)


def sees_all(explainer):
    report = explainer.explain(
        random_photo((100, 100)), "occlusion:window=16,stride=16", target="0"
    )
    seen = report.explanation.heatmap.seen.mean()
    assert seen > 0.95, f"{seen:.0%} of the photo is seen"


def is_saturated(explainer, photo):
    report = explainer.explain(photo, "occlusion")
    assert report.images[0].predictions[0]["probability"] == pytest.approx(1.0)
    assert is_said(report, "saturated")
    assert is_said(report, "measure=score")
    assert not is_said(report, "no positive evidence")
    drawn = explainer.explain(photo, "occlusion:measure=score").attribution
    assert np.ptp(drawn) > 0


def open_case(folder, model, preprocess="unit", **more):
    """Open a network, or a file, with pixels divided by 255 unless told otherwise."""
    path = model if isinstance(model, Path) else folder / "case.onnx"
    if not isinstance(model, Path):
        onnx.save(model, path)
    return inspector.load(path, device="cpu", preprocess=preprocess, **more)
