"""Files that fix a batch of several images: one photo gives what it gives with a batch of one."""

import numpy as np
import pytest
from field_cases import Writer
from field_checks import SQUARE, is_inside, is_said, open_case, painted, peak_of

from inspector.engines.copies import Copies, copies_in

OCCLUSION = "occlusion:window=10,stride=5"
METHODS = ("grad-cam", "ablation-cam", "gradient", "guided-grad-cam", OCCLUSION)


def baked_reshape(batch):
    """A flattening that says the batch, as tracing writes ``x.view(x.size(0), -1)``."""
    g = Writer((batch, 3, 64, 64))
    x = g.add("MaxPool", g.red("image"), kernel_shape=[8, 8], strides=[8, 8])
    x = g.add("Reshape", x, g.ints(batch, -1))
    weight = np.zeros((128, 2), np.float32)
    weight[:64, 1] = 0.5
    g.add("MatMul", x, g.constant(weight), name="logits")
    return g.model(logits=(batch, 2)), "1"


def turned_output(batch):
    """Classes first, images last."""
    g = Writer((batch, 3, 64, 64))
    g.add("Transpose", g.mean_and_linear(g.red("image")), perm=[1, 0], name="logits")
    return g.model(logits=(2, batch)), "logits[1,0]"


def flat_output(batch):
    """The scores of all images in one row, as some detectors list their cells."""
    g = Writer((batch, 3, 64, 64))
    g.add("Reshape", g.mean_and_linear(g.red("image")), g.ints(-1), name="logits")
    return g.model(logits=(2 * batch,)), "logits[1]"


def joined_tiles(batch, *, parts_first):
    """Four tiles of each image as rows of the batch, image by image or tile by tile."""
    g = Writer((batch, 3, 64, 64))
    if parts_first:
        corners = [(a, b, a + 32, b + 32) for a in (0, 32) for b in (0, 32)]
        tiles = g.add("Concat", *[g.crop("image", *corner) for corner in corners], axis=0)
    else:
        x = g.add("Reshape", "image", g.ints(batch, 3, 2, 32, 2, 32))
        x = g.add("Transpose", x, perm=[0, 2, 4, 1, 3, 5])
        tiles = g.add("Reshape", x, g.ints(batch * 4, 3, 32, 32))
    rows = g.mean_and_linear(g.red(tiles))
    shape = (4, batch, 2) if parts_first else (batch, 4, 2)
    rows = g.add("Reshape", rows, g.ints(*shape))
    g.add("ReduceMean", rows, axes=[0 if parts_first else 1], keepdims=0, name="logits")
    return g.model(logits=(batch, 2)), "1"


KINDS = {
    "baked reshape": baked_reshape,
    "turned output": turned_output,
    "flat output": flat_output,
    "tiles": lambda batch: joined_tiles(batch, parts_first=False),
    "tiles, parts first": lambda batch: joined_tiles(batch, parts_first=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_gives_what_it_gives_with_a_batch_of_one(tmp_path, kind):
    maps = [_maps(open_case(tmp_path, model), target) for model, target in map(KINDS[kind], (1, 3))]
    for method, one in maps[0].items():
        three = maps[1][method]
        if isinstance(one, str):
            assert three == one
            continue
        assert is_inside(peak_of(three), SQUARE, margin=10), method
        assert three.attribution.score == pytest.approx(one.attribution.score, rel=1e-5)
        assert three.heatmap.values == pytest.approx(one.heatmap.values, rel=1e-4, abs=1e-7)


def _maps(explainer, target):
    image = explainer.explain(painted(), METHODS, target=target).images[0]
    found = {one.attribution.method: one for one in image.explanations}
    return found | {one.method: one.error.what for one in image.refused}


def test_images_that_act_on_each_other_are_mentioned(tmp_path):
    g = Writer((3, 3, 64, 64))
    x = g.red("image")
    mean = g.add("ReduceMean", x, axes=[0], keepdims=1)
    g.mean_and_linear(g.add("Sub", x, g.add("Mul", mean, g.constant(0.5))), "logits")
    explainer = open_case(tmp_path, g.model(logits=(3, 2)))
    assert is_said(explainer.explain(painted(), "grad-cam", target="1"), "act on each other")


def test_images_that_are_alone_are_not_said_to_act_on_each_other(tmp_path):
    explainer = open_case(tmp_path, baked_reshape(3)[0])
    assert not is_said(explainer.explain(painted(), "grad-cam", target="1"), "each other")


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_copies_are_found_where_they_lie(axis, apart):
    part = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    made = Copies(3, axis, apart)
    found = copies_in(made.filled(part), 3, 1e-5)
    assert found == made
    assert np.array_equal(found.first(made.filled(part)), part)
    assert found.total(made.filled(part)) == pytest.approx(3 * part)


def test_a_tensor_that_holds_no_copies_is_whole():
    assert copies_in(np.arange(6.0), 3, 1e-5) is None
    assert copies_in(np.float32(2), 3, 1e-5) is None


def test_a_target_that_has_no_batch_axis_takes_layer_methods_one_by_one(tmp_path):
    """A stack of two answers, (2, N, K): the tail runs for one sample at a time."""
    g = Writer(("n", 3, 64, 64))
    x = g.mean_and_linear(g.red("image"))
    two = [g.add("Unsqueeze", y, g.ints(0)) for y in (x, g.add("Neg", x))]
    g.add("Concat", *two, axis=0, name="both")
    explainer = open_case(tmp_path, g.model(both=(2, "n", 2)))
    for method in ("ablation-cam", "score-cam"):
        found = explainer.explain(painted(), method, target="both[0,0,1]").explanation
        assert is_inside(peak_of(found), SQUARE, margin=10)
