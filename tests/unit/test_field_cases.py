"""Kinds of received files on which a map was wrong or blank without a word, member by member.

Each gives its right value, or a refusal that names the node.
"""

from functools import partial

import field_cases as cases
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from field_cases import GREEN
from field_checks import (
    BYPASS,
    GREEN_SQUARE,
    SQUARE,
    a_hint_works,
    is_a_sequence,
    is_inside,
    is_said,
    is_saturated,
    layer_is,
    names_a_node,
    no_percent,
    occlusion_is_exact,
    one_meaning,
    open_case,
    painted,
    peak_of,
    points_at,
    random_photo,
    red_and_green,
    refused_well,
    same_in_company,
    sees_all,
    session_of,
    three_photos,
    unread_is_uncoloured,
)

from converters.errors import ExplainedError
from inspector.errors import MethodRefused, UsageError
from inspector.passes import maps


@pytest.fixture
def opened(tmp_path):
    return partial(open_case, tmp_path)


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
    points_at(opened(PLACED[kind]()), painted(), SQUARE, method)


@pytest.mark.parametrize("turned", [False, True])
def test_swapped_axes_of_an_oblong_photo(opened, turned):
    box = (8, 20, 60, 76)
    explainer = opened(cases.transposed((48, 80), turned=turned))
    points_at(explainer, painted((48, 80), box), box)


def test_an_ordinary_network_is_drawn_without_a_word(opened):
    found = points_at(opened(cases.plain()), painted(), SQUARE)
    assert found is not None
    assert not found.warnings


@pytest.mark.parametrize("step", [1, 2])
def test_pixels_that_a_crop_leaves_out_are_not_coloured(opened, step):
    box = (12, 28, 68, 84)
    found = points_at(opened(cases.cropped(step)), painted((96, 96), box), box, "cam")
    unread_is_uncoloured(found)


def test_layers_says_where_a_crop_begins(opened):
    from inspector.overview import overview

    (row,) = overview(opened(cases.cropped())).rows
    assert row.offset == "0, 32"
    assert tuple(row.stride) == (1.0, 1.0)


def test_a_large_filter_without_padding_is_laid_at_its_own_centres(opened):
    box = (6, 10, 18, 22)  # off the centre, where a stretched grid is wrong
    seen_by = (0, 16, 12, 28)  # pixels that share a unit of 13x13 with the square
    found = points_at(opened(cases.unpadded()), painted((28, 28), box), seen_by, said="(?!)")
    if found is None:
        return
    heat = np.nan_to_num(found.heatmap.values, nan=0.0)
    bright = np.argwhere(heat > 0.5 * heat.max())
    # Units 0..15 are centred on 6..21: the bright ones span the square and six pixels around it.
    y, x = bright.mean(axis=0)
    assert abs(y - 9.5) <= 2
    assert abs(x - 18) <= 2


# -- a part of the score ------------------------------------------------------------------------


@pytest.mark.parametrize(("members", "seeing"), [(2, 0), (2, 1), (3, 0), (3, 1)])
def test_members_that_look_elsewhere_are_mentioned(opened, members, seeing):
    explainer = opened(cases.ensemble(members, seeing=seeing))
    points_at(explainer, painted(), SQUARE, said=BYPASS)


def test_a_score_that_passes_no_layer_is_mentioned(opened):
    points_at(opened(cases.colour_beside_layer()), painted(), SQUARE, said=BYPASS)


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
    model, photo = cases.heads(kind), painted()
    report = opened(model).explain(photo, "grad-cam", target=f"{name}[{index}]")
    true = _true_cam(model, photo, name, index)
    assert np.allclose(report.attribution, true, rtol=1e-3, atol=1e-4 * max(true.max(), 1e-6))


def test_the_tensor_before_a_probability_is_said(opened):
    report = opened(cases.heads()).explain(painted(), "grad-cam", target="gender[0]")
    assert report.explanation.attribution.tensor == "gender_logits"


@pytest.mark.parametrize(("gain", "label"), [(600.0, "certain"), (20.0, "not certain")])
def test_probabilities_get_no_second_softmax(opened, gain, label):
    del label
    model, photo = cases.probabilities_of_one_sigmoid(gain), painted()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = photo.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255)
    (true,) = session.run(None, {"image": image})
    report = opened(model).explain(photo, "occlusion:window=16,stride=16", target="1")
    shown = {p["index"]: p["probability"] for p in report.images[0].predictions}
    for index, value in shown.items():
        assert value is None or abs(value - float(true[0, index])) < 1e-4


@pytest.mark.parametrize("method", ["cam", "grad-cam", "occlusion:window=8,stride=4", "gradient"])
def test_the_first_label_of_one_unit_is_its_negative_side(opened, method):
    explainer = opened(cases.sigmoid_unit(), labels=["healthy", "diseased"])
    found, other = (
        explainer.explain(red_and_green(), method, target=label).explanation
        for label in ("healthy", "diseased")
    )
    if method == "gradient":  # which has no sign on the photo
        assert np.allclose(found.attribution.values, -other.attribution.values, atol=1e-7)
        return
    assert is_inside(peak_of(found), GREEN_SQUARE, margin=4)
    assert is_inside(peak_of(other), (10, 24, 40, 54), margin=4)


@pytest.mark.parametrize("labels", [None, ["healthy", "diseased"]])
def test_top1_of_one_unit_is_the_side_that_it_predicts(opened, labels):
    photo = painted(box=GREEN_SQUARE, colour=GREEN)
    explainer = opened(cases.sigmoid_unit(), labels=labels)
    found = explainer.explain(photo, "grad-cam").explanation
    assert is_inside(peak_of(found), GREEN_SQUARE)
    assert not found.attribution.empty


def test_the_opposite_of_top1_can_be_asked_for(opened):
    photo = red_and_green()
    explainer = opened(cases.plain())
    first = explainer.explain(photo, "occlusion:window=8,stride=8", target="top1").attribution
    other = explainer.explain(photo, "occlusion:window=8,stride=8", target="-top1").attribution
    assert np.allclose(first, -other, atol=1e-6)


# -- samples alone ------------------------------------------------------------------------------


MIXING = {
    "training-normalisation": cases.training_normalisation,
    "dynamic-scale": cases.dynamic_scale,
    "softmax-over-batch": cases.softmax_over_batch,
}


@pytest.mark.parametrize("kind", MIXING)
def test_occlusion_equals_one_image_at_a_time(opened, kind):
    model = MIXING[kind]()
    occlusion_is_exact(opened(model), model, three_photos())


@pytest.mark.parametrize("method", ["cam", "grad-cam", "gradient"])
@pytest.mark.parametrize("kind", MIXING)
def test_a_photo_scores_the_same_in_company(opened, kind, method):
    model = MIXING[kind]()
    same_in_company(opened(model), model, three_photos(), method)


def test_training_normalisation_has_a_gradient(opened):
    model, photo = cases.training_normalisation(), three_photos()[0]
    gradient = opened(model).explain(photo, "gradient", target="1").attribution
    session, image = session_of(model, photo)
    step = np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    ends = [
        float(session.run(None, {"image": (image + sign * 1e-3 * step)[None]})[0][0, 1])
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / 2e-3
    assert float((gradient * step).sum()) == pytest.approx(slope, rel=0.05, abs=0.02)


def test_a_network_that_a_run_changes_is_no_fact(opened):
    """Equal scale and running variance: ONNX Runtime writes one over the other, run by run."""
    model, photo = cases.training_normalisation(shared=True), three_photos()[0]
    session, image = session_of(model, photo, optimise=False)
    true = float(session.run(None, {"image": image[None]})[0][0, 1])
    explainer = opened(model)
    for method in ("cam", "occlusion"):
        for _ in range(2):
            try:
                found = explainer.explain(photo, method, target="1").explanation
            except ExplainedError as error:
                refused_well(explainer, error)
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
        explainer.explain(painted(), method, target="1")
    assert names_a_node(explainer, raised.value), raised.value


# -- structures of real exports -----------------------------------------------------------------


@pytest.mark.parametrize("target", ["cells[3]", "cells[5,2]", "cells[0]", "cells[15,6]"])
def test_a_target_without_a_batch_axis_has_one_meaning(opened, target):
    model = cases.rows_are_cells()
    one_meaning(opened(model), model, target)


def test_a_cell_is_addressed_as_it_is_printed(opened):
    model, photo = cases.rows_are_cells(), random_photo()
    session, image = session_of(model, photo)
    true = float(session.run(None, {"image": image[None]})[0][5, 2])
    found = opened(model).explain(photo, "gradient", target="cells[5,2]").explanation
    assert found.attribution.score == pytest.approx(true, rel=1e-4)


def test_scores_without_a_batch_axis_are_addressed_as_they_are_printed(opened):
    model, photo = cases.flat_scores(), painted()
    session, image = session_of(model, photo)
    true = float(session.run(None, {"image": image[None]})[0][1])
    found = opened(model).explain(photo, "grad-cam", target="out[1]").explanation
    assert found.attribution.score == pytest.approx(true, rel=1e-4)
    assert is_inside(peak_of(found), SQUARE)


@pytest.mark.parametrize("shape", [(1,), ()])
def test_one_number_has_a_target_that_works(opened, shape):
    a_hint_works(opened(cases.one_number(shape)), random_photo((32, 32)))


@pytest.mark.parametrize("target", ["output0[5,27]", "output0[4,0]", "output0[1,27]"])
def test_the_layer_of_a_detector_is_its_last_image_plane(opened, target):
    layer_is(opened(cases.dfl_head()), random_photo(), target, "f1r")


@pytest.mark.parametrize(("target", "layer"), [("output[20,3]", "r8"), ("output[70,3]", "r16")])
def test_the_layer_is_of_the_targets_own_level(opened, target, layer):
    layer_is(opened(cases.two_levels()), random_photo(), target, layer)


def test_a_layer_that_the_target_does_not_depend_on_is_no_lack_of_evidence(opened):
    explainer = opened(cases.two_levels())
    with pytest.raises(MethodRefused, match="does not depend"):
        explainer.explain(random_photo(), "grad-cam", target="output[20,3]", layer="r16")


def test_anchors_are_no_classes(opened):
    no_percent(opened(cases.anchors()), random_photo())


def test_a_sequence_is_no_classifier(opened):
    is_a_sequence(opened(cases.sequence(), preprocess=None))


@pytest.mark.parametrize("size", [(32, 192), (50, 155), (160, 48)])
def test_a_wide_input_sees_the_whole_photo(opened, size):
    sees_all(opened(cases.classifier(size), preprocess=None))


def test_a_saturated_probability_is_said_with_the_option_that_helps(opened):
    is_saturated(opened(cases.classifier(scale=3000.0)), random_photo((32, 32)))


def test_the_producer_is_evidence_for_the_preprocessing(opened):
    """tf2onnx writes Keras networks, whatever the layout of the input."""
    first = opened(cases.classifier(producer="tf2onnx"), preprocess=None)
    last = opened(cases.classifier(producer="tf2onnx", last=True), preprocess=None)
    other = opened(cases.classifier(producer="pytorch"), preprocess=None)
    assert first.preprocessing.preprocess.mean == last.preprocessing.preprocess.mean
    assert first.preprocessing.preprocess.mean != other.preprocessing.preprocess.mean


def test_casts_do_not_end_a_layer(opened):
    photo = random_photo((32, 32))
    for casts in (True, False):
        explainer = opened(cases.nhwc_tail(casts=casts))
        shown = {
            method: explainer.explain(photo, method, target="0").explanation
            for method in ("grad-cam", "cam")
        }
        layers = {e.attribution.layer for e in shown.values()}
        assert layers in ({"r2"}, {"r2_channels_first"}), casts  # one map, two names


def test_a_twin_that_cannot_be_certified_is_refused(opened):
    explainer = opened(cases.unknown_times_nothing())
    for method in ("grad-cam", "grad-cam++"):
        with pytest.raises(ExplainedError):
            explainer.explain(painted(), method, target="1")
    # What needs no gradient is drawn.
    found = explainer.explain(painted(), "cam", target="1").explanation
    assert is_inside(peak_of(found), SQUARE)


def test_what_cannot_be_certified_is_labelled_where_the_user_insists(opened):
    explainer = opened(cases.unknown_times_nothing(), unverified=True)
    report = explainer.explain(painted(), "grad-cam", target="1")
    assert is_said(report, "unverified|not (be )?certified")


# -- the received files -------------------------------------------------------------------------


def test_images_whose_targets_lie_behind_different_layers_are_not_stacked(opened, monkeypatch):
    """Two images that choose levels of a pyramid have maps of two sizes."""
    explainer = opened(cases.two_levels())
    chosen = iter(["r8", "r16"])
    monkeypatch.setattr(maps._Samples, "_layer_for", lambda *_: (next(chosen), ""))
    one = np.random.default_rng(0).random((1, 3, *explainer.size())).astype(np.float32)
    with pytest.raises(UsageError, match="different layers: 'r8', 'r16'"):
        explainer.attribute(np.concatenate([one, one]), "grad-cam", target="output[:,3]")


def test_a_choice_of_the_layer_that_is_refused_leaves_the_other_methods(opened, monkeypatch):
    def refused(*_):
        raise MethodRefused("no gradient on the way")

    explainer = opened(cases.two_levels())
    monkeypatch.setattr(maps._Samples, "_layer_for", refused)
    found = explainer.explain(random_photo(), ["grad-cam", "gradient"], target="output[20,3]")
    assert [one.label for one in found.explanations] == ["gradient"]
    assert "no gradient on the way" in str(found.images[0].refused[0].error)
