"""Readings of any task: what is none of them, the words of targets, and outlines."""

import numpy as np
import onnx
from networks import CLASSES, Net
from PIL import Image

import inspector
from inspector.heatmap import Attribution, Heatmap
from inspector.photos.geometry import Geometry
from inspector.render.drawing.outline import LINE, outlined
from inspector.tasks.words import Words, pieces, read_words


def test_a_classifier_is_read_as_before(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(Net(1, softmax=True).proto(), path)
    model = inspector.load(path, device="cpu")
    assert model.reading() is None
    assert model.meaning.startswith(f"classifier ({CLASSES} classes")
    assert model.reading("classifier") is None


def test_pictures_of_the_input_s_size_are_not_classes(tmp_path):
    """Three channels that nothing calls classes: style transfer."""
    from networks import node, onnx_model

    proto = onnx_model(
        [node("Conv", "x w", "picture", pads=[1, 1, 1, 1])],
        {"x": [1, 3, 16, 16]},
        {"picture": [1, 3, 16, 16]},
        {"w": np.random.default_rng(0).standard_normal((3, 3, 3, 3)).astype(np.float32)},
        opset=17,
    )
    path = tmp_path / "style.onnx"
    onnx.save(proto, path)
    model = inspector.load(path, device="cpu")
    assert model.reading().task == "dense"
    assert model.meaning.startswith("dense prediction ('picture', a picture of 3 channels")
    assert model.reading("segmenter").task == "segmenter"


def test_words_are_taken_apart():
    listed = "person, dog#2,box:1,2,30,40,-cat@3,4,top2,mask:a b.png,output0[4,219]"
    found = ["person", "dog#2", "box:1,2,30,40", "-cat@3,4", "top2", "mask:a b.png"]
    assert list(pieces(listed)) == [*found, "output0[4,219]"]
    assert read_words("dog#2") == Words(name="dog", rank=2)
    assert read_words("box:1,2,30,40") == Words(box=(1, 2, 30, 40))
    assert read_words("cat@3,4.5") == Words(name="cat", point=(3, 4.5))
    assert read_words("@3,4") == Words(point=(3, 4))
    assert read_words("top2") == Words(top=2)
    assert read_words("mask:a b.png") == Words(mask="a b.png")
    assert read_words("C#") == Words(name="C#")


def test_a_small_item_is_outlined_by_a_box_that_can_be_seen():
    attribution = Attribution(np.ones((2, 2)), "layer", "x", box=(10.0, 10.0, 10.5, 10.5))
    heatmap = Heatmap.of(attribution, Geometry.identity((40, 40)))
    panel = np.asarray(outlined(Image.new("RGB", (40, 40), (90, 90, 90)), heatmap))
    assert (panel == LINE).all(2).sum() >= 16
    assert (panel[9:12, 9:12] == 90).all()
