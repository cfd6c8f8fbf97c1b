"""Kinds of received files on which a map was wrong or blank without a word, member by member.

Each gives its right value, or a refusal that names the node. The same is asked of the files in
``shared/cases`` where that folder lies beside the project.
"""

import re
from pathlib import Path

import field_cases as cases
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from field_cases import GREEN, RED

import inspector
from converters.errors import ExplainedError
from inspector.errors import MethodRefused, UnknownTarget

SQUARE = (8, 24, 38, 54)
"""Rows 8..23, columns 38..53."""


def _painted(size=(64, 64), box=SQUARE, colour=RED, ground=70):
    photo = np.full((*size, 3), ground, np.uint8)
    y0, y1, x0, x1 = box
    photo[y0:y1, x0:x1] = colour
    return photo


@pytest.fixture
def opened(tmp_path):
    """Open a network, or a file, with pixels divided by 255 unless told otherwise."""

    def make(model, preprocess="unit", **more):
        path = model if isinstance(model, Path) else tmp_path / "case.onnx"
        if not isinstance(model, Path):
            onnx.save(model, path)
        return inspector.load(path, device="cpu", preprocess=preprocess, **more)

    return make


def _folder():
    for parent in Path(__file__).resolve().parents:
        if (parent / "shared" / "cases" / "maps").is_dir():
            return parent / "shared" / "cases"
    return None


@pytest.fixture
def received():
    """A file of ``shared/cases``."""

    def make(name):
        folder = _folder()
        if folder is None:
            pytest.skip("the received files (shared/cases) are not here")
        return folder / name

    return make


def _read(path):
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


def _peak(explanation):
    heat = explanation.heatmap.values
    y, x = np.unravel_index(int(np.nanargmax(heat)), heat.shape)
    return int(y), int(x)


def _inside(point, box, margin=1):
    y0, y1, x0, x1 = box
    return y0 - margin <= point[0] < y1 + margin and x0 - margin <= point[1] < x1 + margin


def _names_a_node(explainer, error):
    graph = explainer.graph
    names = {name for node in graph.nodes for name in (node.name, *node.outputs) if name}
    return any(repr(name) in str(error) for name in names)


def _said(report, pattern):
    image = report.images[0]
    texts = [*image.explanations[0].warnings, *image.warnings]
    return any(re.search(pattern, text, re.IGNORECASE) for text in texts)


def _points_at(explainer, photo, box, method="grad-cam", target="1", said="(?!)"):
    """The peak lies in the square, or a refusal names the node, or a sentence says why not."""
    try:
        report = explainer.explain(photo, method, target=target)
    except ExplainedError as error:
        assert _names_a_node(explainer, error), error
        return None
    found = report.explanation
    assert _said(report, said) or _inside(_peak(found), box), f"peak (y, x) {_peak(found)}"
    return found


PLACED = {
    "tiles": cases.tiles,
    "strips": lambda: cases.tiles(1, 2),
    "tiles-max": lambda: cases.tiles(join="ReduceMax"),
    "corner-crops": cases.corner_crops,
    "flips-in-batch": cases.flips_in_batch,
    "mirrored-branch": cases.mirrored_branch,
    "mirrored-branch-first": lambda: cases.mirrored_branch(last=False),
    "upside-down-branch": lambda: cases.mirrored_branch(2),
    "mirrored-alone": lambda: cases.mirrored_branch(alone=True),
    "transposed": cases.transposed,
    "turned": lambda: cases.transposed(turned=True),
}


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "cam", "guided-grad-cam"])
@pytest.mark.parametrize("kind", PLACED)
def test_the_map_lies_where_the_network_looked(opened, kind, method):
    if method == "cam" and kind not in {"mirrored-alone", "transposed", "turned"}:
        pytest.skip("CAM is not exact for this head")
    _points_at(opened(PLACED[kind]()), _painted(), SQUARE, method)


@pytest.mark.parametrize("turned", [False, True])
def test_swapped_axes_of_an_oblong_photo(opened, turned):
    box = (8, 20, 60, 76)
    explainer = opened(cases.transposed((48, 80), turned=turned))
    _points_at(explainer, _painted((48, 80), box), box)


def test_an_ordinary_network_is_drawn_without_a_word(opened):
    found = _points_at(opened(cases.plain()), _painted(), SQUARE)
    assert found is not None
    assert not found.warnings


@pytest.mark.parametrize("step", [1, 2])
def test_pixels_that_a_crop_leaves_out_are_not_coloured(opened, step):
    box = (12, 28, 68, 84)
    found = _points_at(opened(cases.cropped(step)), _painted((96, 96), box), box, "cam")
    _unread_is_uncoloured(found)


def _unread_is_uncoloured(found):
    if found is None:
        return
    heat = np.nan_to_num(found.heatmap.values, nan=0.0)
    unread = np.ones((96, 96), bool)
    unread[:65, 31:] = False
    assert np.abs(heat[unread]).max() <= 0.05 * np.abs(heat).max()


def test_layers_says_where_a_crop_begins(opened):
    from inspector.overview import overview

    (row,) = overview(opened(cases.cropped())).rows
    assert row.offset == "0, 32"
    assert tuple(row.stride) == (1.0, 1.0)


def test_a_large_filter_without_padding_is_laid_at_its_own_centres(opened):
    box = (6, 10, 18, 22)  # off the centre, where a stretched grid is wrong
    found = _points_at(opened(cases.unpadded()), _painted((28, 28), box), box, said="(?!)")
    if found is None:
        return
    heat = np.nan_to_num(found.heatmap.values, nan=0.0)
    bright = np.argwhere(heat > 0.5 * heat.max())
    # Units 0..15 are centred on 6..21: the bright ones span the square and six pixels around it.
    y, x = bright.mean(axis=0)
    assert abs(y - 9.5) <= 2
    assert abs(x - 18) <= 2


# -- a part of the score ------------------------------------------------------------------------

BYPASS = r"bypass|of the score|other path|does not depend"


@pytest.mark.parametrize(("members", "seeing"), [(2, 0), (2, 1), (3, 0), (3, 1)])
def test_members_that_look_elsewhere_are_mentioned(opened, members, seeing):
    explainer = opened(cases.ensemble(members, seeing=seeing))
    _points_at(explainer, _painted(), SQUARE, said=BYPASS)


def test_a_score_that_passes_no_layer_is_mentioned(opened):
    _points_at(opened(cases.colour_beside_layer()), _painted(), SQUARE, said=BYPASS)


# -- which number -------------------------------------------------------------------------------


def _true_cam(model, photo, name, index):
    """Grad-CAM of a head's score before its probability, from the features and the weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(onnx.ValueInfoProto(name="features"))
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    image = photo.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255)
    (features,) = session.run(["features"], {"image": image})
    (weight,) = (w for w in model.graph.initializer if w.name == f"{name}_weight")
    column = onnx.numpy_helper.to_array(weight)[:, index]
    area = features.shape[2] * features.shape[3]
    return np.maximum(np.einsum("k,khw->hw", column / area, features[0]), 0)


@pytest.mark.parametrize("kind", ["Softmax", "Sigmoid", "LogSoftmax", "written-out"])
@pytest.mark.parametrize(("name", "index"), [("gender", 0), ("gender", 1), ("race", 3)])
def test_a_named_probability_stands_for_the_score_before_it(opened, kind, name, index):
    model, photo = cases.heads(kind), _painted()
    report = opened(model).explain(photo, "grad-cam", target=f"{name}[{index}]")
    true = _true_cam(model, photo, name, index)
    assert np.allclose(report.attribution, true, rtol=1e-3, atol=1e-4 * max(true.max(), 1e-6))


def test_the_tensor_before_a_probability_is_said(opened):
    report = opened(cases.heads()).explain(_painted(), "grad-cam", target="gender[0]")
    assert report.explanation.attribution.tensor == "gender_logits"


@pytest.mark.parametrize(("gain", "label"), [(600.0, "certain"), (20.0, "not certain")])
def test_probabilities_get_no_second_softmax(opened, gain, label):
    del label
    model, photo = cases.probabilities_of_one_sigmoid(gain), _painted()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = photo.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255)
    (true,) = session.run(None, {"image": image})
    report = opened(model).explain(photo, "occlusion:window=16,stride=16", target="1")
    shown = {p["index"]: p["probability"] for p in report.images[0].predictions}
    for index, value in shown.items():
        assert value is None or abs(value - float(true[0, index])) < 1e-4


GREEN_SQUARE = (40, 58, 10, 28)


def _both():
    return _both_on(_painted(box=(10, 24, 40, 54)))


def _both_on(photo):
    y0, y1, x0, x1 = GREEN_SQUARE
    photo[y0:y1, x0:x1] = GREEN
    return photo


@pytest.mark.parametrize("method", ["cam", "grad-cam", "occlusion:window=8,stride=4", "gradient"])
def test_the_first_label_of_one_unit_is_its_negative_side(opened, method):
    explainer = opened(cases.sigmoid_unit(), labels=["healthy", "diseased"])
    found, other = (
        explainer.explain(_both(), method, target=label).explanation
        for label in ("healthy", "diseased")
    )
    if method == "gradient":  # which has no sign on the photo
        assert np.allclose(found.attribution.values, -other.attribution.values, atol=1e-7)
        return
    assert _inside(_peak(found), GREEN_SQUARE, margin=4)
    assert _inside(_peak(other), (10, 24, 40, 54), margin=4)


@pytest.mark.parametrize("labels", [None, ["healthy", "diseased"]])
def test_top1_of_one_unit_is_the_side_that_it_predicts(opened, labels):
    photo = _painted(box=GREEN_SQUARE, colour=GREEN)
    explainer = opened(cases.sigmoid_unit(), labels=labels)
    found = explainer.explain(photo, "grad-cam").explanation
    assert _inside(_peak(found), GREEN_SQUARE)
    assert not found.attribution.empty


def test_the_opposite_of_top1_can_be_asked_for(opened):
    photo = _both()
    explainer = opened(cases.plain())
    first = explainer.explain(photo, "occlusion:window=8,stride=8", target="top1").attribution
    other = explainer.explain(photo, "occlusion:window=8,stride=8", target="-top1").attribution
    assert np.allclose(first, -other, atol=1e-6)


# -- samples alone ------------------------------------------------------------------------------


def _noisy(row, column, radius, ground, seed):
    photo = np.random.default_rng(seed).normal(ground, 12, (64, 64, 3))
    rows, columns = np.mgrid[:64, :64]
    photo[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = RED
    return np.clip(photo, 0, 255).astype(np.uint8)


def _photos():
    photos = _noisy(16, 46, 5, 60, 0), _noisy(46, 16, 8, 80, 1), _noisy(46, 46, 8, 100, 2)
    photos[2][:2, :2] = 255  # which stretches a scale that is taken over the batch
    return photos


MIXING = {
    "training-normalisation": cases.training_normalisation,
    "dynamic-scale": cases.dynamic_scale,
    "softmax-over-batch": cases.softmax_over_batch,
}


def _alone(model, photo, *, optimise=True):
    options = ort.SessionOptions()
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session, photo.astype(np.float32).transpose(2, 0, 1) / np.float32(255)


def _by_hand(score, image, facts):
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


@pytest.mark.parametrize("kind", MIXING)
def test_occlusion_equals_one_image_at_a_time(opened, kind):
    model = MIXING[kind]()
    _occlusion_is_exact(opened(model), model, _photos())


def _occlusion_is_exact(explainer, model, photos):
    report = explainer.explain(list(photos), "occlusion:window=20,stride=4", target="1")
    found = report.images[0].explanations[0]
    session, image = _alone(model, photos[0])

    def score(x):
        return float(session.run(None, {"image": x[None]})[0][0, 1])

    true = _by_hand(score, image, found.facts["occlusion"])
    values = np.squeeze(found.attribution.values)
    assert np.abs(values - true).max() <= 1e-5 * max(1.0, np.abs(true).max())


@pytest.mark.parametrize("method", ["cam", "grad-cam", "gradient"])
@pytest.mark.parametrize("kind", MIXING)
def test_a_photo_scores_the_same_in_company(opened, kind, method):
    model = MIXING[kind]()
    _same_in_company(opened(model), model, _photos(), method)


def _same_in_company(explainer, model, photos, method):
    session, image = _alone(model, photos[0])
    true = float(session.run(None, {"image": image[None]})[0][0, 1])
    try:
        beside = explainer.explain(list(photos), method, target="1").images[0].explanations[0]
    except MethodRefused as error:
        assert _names_a_node(explainer, error), error
        return
    assert beside.attribution.score == pytest.approx(true, rel=1e-4)
    alone = explainer.explain(photos[0], method, target="1").explanation
    peak = np.abs(alone.attribution.values).max()
    assert np.abs(beside.attribution.values - alone.attribution.values).max() <= 1e-4 * peak


def test_training_normalisation_has_a_gradient(opened):
    model, photo = cases.training_normalisation(), _photos()[0]
    gradient = opened(model).explain(photo, "gradient", target="1").attribution
    session, image = _alone(model, photo)
    step = np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    ends = [
        float(session.run(None, {"image": (image + sign * 1e-3 * step)[None]})[0][0, 1])
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / 2e-3
    assert float((gradient * step).sum()) == pytest.approx(slope, rel=0.05, abs=0.02)


def test_a_network_that_a_run_changes_is_no_fact(opened):
    """Equal scale and running variance: ONNX Runtime writes one over the other, run by run."""
    model, photo = cases.training_normalisation(shared=True), _photos()[0]
    session, image = _alone(model, photo, optimise=False)
    true = float(session.run(None, {"image": image[None]})[0][0, 1])
    explainer = opened(model)
    for method in ("cam", "occlusion"):
        for _ in range(2):
            try:
                found = explainer.explain(photo, method, target="1").explanation
            except ExplainedError as error:
                assert _names_a_node(explainer, error), error
                continue
            assert found.attribution.score == pytest.approx(true, rel=1e-3)


DICE = {
    "normal": cases.dice,
    "uniform": lambda: cases.dice("RandomUniformLike"),
    "bernoulli": lambda: cases.dice("Bernoulli"),
    "behind": lambda: cases.dice(before=False),
    "dropout": cases.dropout_in_training,
}


@pytest.mark.parametrize("method", ["cam", "grad-cam", "gradient", "occlusion:window=16,stride=16"])
@pytest.mark.parametrize("kind", DICE)
def test_a_network_that_draws_random_numbers_is_refused(opened, kind, method):
    explainer = opened(DICE[kind]())
    with pytest.raises(ExplainedError) as raised:
        explainer.explain(_painted(), method, target="1")
    assert _names_a_node(explainer, raised.value), raised.value


# -- structures of real exports -----------------------------------------------------------------


def _photo(size=(64, 64), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def _one_meaning(explainer, model, target):
    """Whatever a target means, its printed score and its occluded scores mean the same."""
    photo = _photo()
    try:
        found = explainer.explain(photo, "occlusion:window=16,stride=8", target=target).explanation
    except ExplainedError:
        return
    session, image = _alone(model, photo)
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
    true = _by_hand(fitting[0], image, found.facts["occlusion"])
    values = np.squeeze(found.attribution.values)
    assert np.abs(values - true).max() <= 1e-5 * max(1.0, np.abs(true).max())


@pytest.mark.parametrize("target", ["cells[3]", "cells[5,2]", "cells[0]", "cells[15,6]"])
def test_a_target_without_a_batch_axis_has_one_meaning(opened, target):
    model = cases.rows_are_cells()
    _one_meaning(opened(model), model, target)


def test_a_cell_is_addressed_as_it_is_printed(opened):
    model, photo = cases.rows_are_cells(), _photo()
    session, image = _alone(model, photo)
    true = float(session.run(None, {"image": image[None]})[0][5, 2])
    found = opened(model).explain(photo, "gradient", target="cells[5,2]").explanation
    assert found.attribution.score == pytest.approx(true, rel=1e-4)


def test_scores_without_a_batch_axis_are_addressed_as_they_are_printed(opened):
    model, photo = cases.flat_scores(), _painted()
    session, image = _alone(model, photo)
    true = float(session.run(None, {"image": image[None]})[0][1])
    found = opened(model).explain(photo, "grad-cam", target="out[1]").explanation
    assert found.attribution.score == pytest.approx(true, rel=1e-4)
    assert _inside(_peak(found), SQUARE)


def _hinted(error):
    found = re.search(r"such as (\S+\[[^\]]*\])|elements: (\S+\[[^\]]*\])", str(error))
    return next(filter(None, found.groups())) if found else None


@pytest.mark.parametrize("shape", [(1,), ()])
def test_one_number_has_a_target_that_works(opened, shape):
    _a_hint_works(opened(cases.one_number(shape)), _photo((32, 32)))


def _a_hint_works(explainer, photo):
    try:
        found = explainer.explain(photo, "grad-cam").explanation
    except UnknownTarget as error:
        target = _hinted(error)
        assert target, error
        found = explainer.explain(photo, "grad-cam", target=target).explanation
    assert np.isfinite(found.attribution.score)


@pytest.mark.parametrize("target", ["output0[5,27]", "output0[4,0]", "output0[1,27]"])
def test_the_layer_of_a_detector_is_its_last_image_plane(opened, target):
    _layer_is(opened(cases.dfl_head()), _photo(), target, "f1r")


def _layer_is(explainer, photo, target, layer):
    report = explainer.explain(photo, "grad-cam", target=target)
    assert report.explanation.attribution.layer == layer
    assert not _said(report, "no positive evidence") or _negative(explainer, photo, target, layer)


def _negative(explainer, photo, target, layer):
    """No positive evidence is said only where the opposite has some."""
    other = explainer.explain(photo, "grad-cam:counterfactual=yes", target=target, layer=layer)
    return not other.explanation.attribution.empty


@pytest.mark.parametrize(("target", "layer"), [("output[20,3]", "r8"), ("output[70,3]", "r16")])
def test_the_layer_is_of_the_targets_own_level(opened, target, layer):
    _layer_is(opened(cases.two_levels()), _photo(), target, layer)


def test_a_layer_that_the_target_does_not_depend_on_is_no_lack_of_evidence(opened):
    explainer = opened(cases.two_levels())
    with pytest.raises(MethodRefused, match="does not depend"):
        explainer.explain(_photo(), "grad-cam", target="output[20,3]", layer="r16")


def test_anchors_are_no_classes(opened):
    _no_percent(opened(cases.anchors()), _photo())


def _no_percent(explainer, photo):
    assert not explainer.scores.classifier
    try:
        report = explainer.explain(photo, "occlusion:window=16,stride=16")
    except UnknownTarget as error:
        assert _hinted(error), error
        return
    assert all(p["probability"] is None for p in report.images[0].predictions)


def test_a_sequence_is_no_classifier(opened):
    _is_a_sequence(opened(cases.sequence(), preprocess=None))


def _is_a_sequence(explainer):
    with pytest.raises(ExplainedError) as raised:
        explainer.explain(_photo((32, 160)), "occlusion:window=16,stride=16")
    assert "lies outside" not in str(raised.value)


@pytest.mark.parametrize("size", [(32, 192), (50, 155), (160, 48)])
def test_a_wide_input_sees_the_whole_photo(opened, size):
    _sees_all(opened(cases.classifier(size), preprocess=None))


def _sees_all(explainer):
    report = explainer.explain(_photo((100, 100)), "occlusion:window=16,stride=16", target="0")
    seen = report.explanation.heatmap.seen.mean()
    assert seen > 0.95, f"{seen:.0%} of the photo is seen"


def test_a_saturated_probability_is_said_with_the_option_that_helps(opened):
    _is_saturated(opened(cases.classifier(scale=3000.0)), _photo((32, 32)))


def _is_saturated(explainer, photo):
    report = explainer.explain(photo, "occlusion")
    assert report.images[0].predictions[0]["probability"] == pytest.approx(1.0)
    assert _said(report, "saturated")
    assert _said(report, "measure=score")
    assert not _said(report, "no positive evidence")
    drawn = explainer.explain(photo, "occlusion:measure=score").attribution
    assert np.ptp(drawn) > 0


def test_the_producer_is_evidence_for_the_preprocessing(opened):
    """tf2onnx writes Keras networks, whatever the layout of the input."""
    first = opened(cases.classifier(producer="tf2onnx"), preprocess=None)
    last = opened(cases.classifier(producer="tf2onnx", last=True), preprocess=None)
    other = opened(cases.classifier(producer="pytorch"), preprocess=None)
    assert first.preprocessing.preprocess.mean == last.preprocessing.preprocess.mean
    assert first.preprocessing.preprocess.mean != other.preprocessing.preprocess.mean


def test_casts_do_not_end_a_layer(opened):
    photo = _photo((32, 32))
    for casts in (True, False):
        explainer = opened(cases.nhwc_tail(casts=casts))
        shown = {
            method: explainer.explain(photo, method, target="0").explanation
            for method in ("grad-cam", "cam")
        }
        assert {e.attribution.layer for e in shown.values()} == {"r2"}, casts


def test_a_twin_that_cannot_be_certified_is_refused(opened):
    explainer = opened(cases.unknown_times_nothing())
    for method in ("grad-cam", "grad-cam++"):
        with pytest.raises(ExplainedError):
            explainer.explain(_painted(), method, target="1")
    # What needs no gradient is drawn.
    found = explainer.explain(_painted(), "cam", target="1").explanation
    assert _inside(_peak(found), SQUARE)


def test_what_cannot_be_certified_is_labelled_where_the_user_insists(opened):
    explainer = opened(cases.unknown_times_nothing(), unverified=True)
    report = explainer.explain(_painted(), "grad-cam", target="1")
    assert _said(report, "unverified|not (be )?certified")


# -- the received files -------------------------------------------------------------------------

RECEIVED_SQUARES = {
    "tiles-in-batch": (SQUARE, "(?!)"),
    "mirrored-branch": (SQUARE, "mirror|bypass|of the score"),
    "transposed-input": (SQUARE, "(?!)"),
    "ensemble": (SQUARE, BYPASS),
    "crop-in-graph": ((12, 28, 68, 84), "(?!)"),
}


@pytest.mark.parametrize("name", RECEIVED_SQUARES)
def test_received_map(opened, received, name):
    folder = received(f"maps/{name}")
    box, said = RECEIVED_SQUARES[name]
    explainer = opened(folder / "model.onnx")
    found = _points_at(explainer, _read(folder / "photo.png"), box, said=said)
    if name == "crop-in-graph":
        _unread_is_uncoloured(found)


def test_received_heads(opened, received):
    folder = received("maps/probability-head")
    explainer, photo = opened(folder / "model.onnx"), _read(folder / "photo.png")
    for index, peak, (x, y) in ((0, 0.6670805, (11, 3)), (1, 0.2064727, (13, 6))):
        values = explainer.explain(photo, "grad-cam", target=f"gender[{index}]").attribution
        assert values.max() == pytest.approx(peak, rel=1e-3)
        assert np.unravel_index(int(values.argmax()), values.shape) == (y, x)


def test_received_probabilities(opened, received):
    folder = received("maps/probabilities-shown")
    explainer, photo = opened(folder / "model.onnx"), _read(folder / "photo.png")
    report = explainer.explain(photo, "occlusion:window=16,stride=16", target="1")
    best = report.images[0].predictions[0]
    assert best["probability"] is None or best["probability"] == pytest.approx(1.0)


def test_received_unit(opened, received):
    folder = received("maps/sigmoid-negative")
    labels = folder / "labels.txt"
    explainer = opened(folder / "model.onnx", labels=labels)
    photo = _read(folder / "both.png")
    found = explainer.explain(photo, "grad-cam", target="healthy").explanation
    assert _inside(_peak(found), GREEN_SQUARE)
    photo = _read(folder / "negative.png")
    found = explainer.explain(photo, "grad-cam").explanation
    assert _inside(_peak(found), (40, 54, 10, 24))


def test_received_training_normalisation(opened, received):
    folder = received("maps/batchnorm-training")
    photos = [_read(folder / f"{name}.png") for name in ("photo", "other1", "other2")]
    model = onnx.ModelProto.FromString((folder / "model.onnx").read_bytes())
    explainer = opened(folder / "model.onnx")
    _occlusion_is_exact(explainer, model, photos)
    _same_in_company(explainer, model, photos, "cam")
    assert explainer.explain(photos[0], "gradient", target="1").attribution.any()


def test_received_cells(opened, received):
    file = received("models/rows_are_cells.onnx")
    model = onnx.ModelProto.FromString(file.read_bytes())
    for target in ("cells[3]", "cells[3,2]"):
        _one_meaning(opened(file), model, target)


def test_received_age(opened, received):
    _a_hint_works(opened(received("models/age_rank_one_output.onnx")), _photo((32, 32)))


@pytest.mark.parametrize(
    ("name", "target", "layer"),
    [
        ("yolov8_dfl_default_layer", "output0[5,27]", "f1r"),
        ("multi_scale_default_layer", "output[20,3]", "r8"),
    ],
)
def test_received_layer(opened, received, name, target, layer):
    _layer_is(opened(received(f"models/{name}.onnx")), _photo(), target, layer)


def test_received_anchors(opened, received):
    _no_percent(opened(received("models/anchors_as_classes.onnx")), _photo())


def test_received_sequence(opened, received):
    _is_a_sequence(opened(received("models/ctc_declared_as_one_step.onnx"), preprocess=None))


def test_received_wide_input(opened, received):
    _sees_all(opened(received("models/wide_input_cropped.onnx"), preprocess=None))


def test_received_saturated(opened, received):
    explainer = opened(received("models/saturated_softmax_occlusion.onnx"))
    _is_saturated(explainer, _photo((32, 32)))


def test_received_producer(opened, received):
    file = received("models/tf2onnx_channels_first_guess.onnx")
    found = opened(file, preprocess=None).preprocessing.preprocess
    assert found.mean != inspector.Preprocess.preset("imagenet").mean


def test_received_casts(opened, received):
    explainer = opened(received("models/nhwc_tail_with_casts.onnx"))
    found = explainer.explain(_photo((32, 32)), "grad-cam", target="0").explanation
    assert found.attribution.layer == "r2"


def test_received_uncertified(opened, received):
    explainer = opened(received("models/certificate_none.onnx"))
    with pytest.raises(ExplainedError):
        explainer.explain(_photo((32, 32)), "grad-cam")
