"""Embeddings: the cosine to a reference photo."""

import numpy as np
import onnx
import pytest
import torch
from detectors import traced
from PIL import Image
from planted_tasks import CLOSE, load
from torch import nn

import inspector
from inspector.errors import ImageRefused, MethodRefused, UnknownTarget, UsageError


class Embedding(nn.Module):
    def __init__(self, *, unit=True):
        super().__init__()
        self.unit = unit
        self.features, self.head = nn.Conv2d(3, 8, 6, 6), nn.Linear(8 * 16, 12)

    def rest(self, A):
        y = self.head(A.flatten(1))
        return nn.functional.normalize(y, dim=1) if self.unit else y

    def forward(self, x):
        return self.rest(torch.relu(self.features(x)))


@pytest.mark.parametrize("unit", [True, False])
def test_the_cosine_to_a_reference_is_explained(tmp_path, unit):
    torch.manual_seed(1)
    module = Embedding(unit=unit).eval()
    rng = np.random.default_rng(3)
    photos = [rng.integers(0, 256, (24, 24, 3), np.uint8) for _ in range(2)]
    inputs = [torch.from_numpy(p.transpose(2, 0, 1)[None] / np.float32(255)) for p in photos]
    path = tmp_path / "face.onnx"
    traced(module, inputs[0], path, ["fc1"])
    model = load(path)
    assert model.scores.classifier is not unit
    if unit:
        assert "embedding" in model.meaning
        with pytest.raises(UnknownTarget, match="similar-to"):
            model.explain(photos[0])
    report = model.explain(photos[0], similar_to=inspector.Photo.of(photos[1]))
    A = torch.relu(module.features(inputs[0])).detach().requires_grad_()
    reference = module(inputs[1]).detach()
    score = nn.functional.cosine_similarity(module.rest(A), reference)[0]
    (g,) = torch.autograd.grad(score, A)
    wanted = np.maximum((g.mean((2, 3), keepdim=True) * A).sum(1)[0].detach().numpy(), 0)
    found = report.explanation.attribution
    assert found.score == pytest.approx(float(score.detach()), abs=1e-5)
    assert report.images[0].predictions == []
    np.testing.assert_allclose(found.values, wanted, atol=CLOSE * max(wanted.max(), 1e-9))
    drawn = np.asarray(report.images[0].figure(report.explanations[0])).reshape(-1, 3)
    colours = {tuple(colour) for colour in np.unique(drawn, axis=0).tolist()}
    assert {tuple(colour) for colour in photos[1].reshape(-1, 3).tolist()} <= colours  # beside it
    assert report.images[0].document()["reference"]["size"] == [24, 24]
    with pytest.raises(UsageError, match=r"--similar-to has nothing to do: .*'fc1\[3\]'"):
        model.explain(photos[0], target="fc1[3]", similar_to=inspector.Photo.of(photos[1]))
    reference = inspector.Photo.of(photos[1])
    with pytest.raises(UsageError, match="--similar-to has nothing to do"):
        model.explain(photos[0], target="1", task="classifier", similar_to=reference)
    swapped = model.explain(photos[1], similar_to=inspector.Photo.of(photos[0]))
    assert swapped.explanation.attribution.score == pytest.approx(found.score, abs=1e-5)


def test_what_is_called_an_embedding_has_no_classes(tmp_path):
    from networks import node, onnx_model

    rng = np.random.default_rng(0)
    proto = onnx_model(
        [
            node("Conv", "x w", "c"),
            node("GlobalAveragePool", "c", "m"),
            node("Flatten", "m", "embedding"),
        ],
        {"x": [1, 3, 16, 16]},
        {"embedding": [1, 64]},
        {"w": rng.standard_normal((64, 3, 3, 3)).astype(np.float32)},
        opset=17,
    )
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    model = load(path)
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    with pytest.raises(UnknownTarget, match="embedding"):
        model.explain(pixels)
    same = model.explain(pixels, "occlusion", similar_to=pixels).explanation.attribution
    assert same.score == pytest.approx(1)
    for method in ("grad-cam", "gradient"):  # a cosine of 1 has no slope: all would be rounding
        with pytest.raises(MethodRefused, match="the similarity is saturated"):
            model.explain(pixels, method, similar_to=pixels)
    assert model.explain(pixels, "gradient", target="embedding[3]").attribution.any()
    report = model.explain(pixels, "gradient", task="classifier")
    assert report.images[0].predictions[0]["probability"] is None


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Embeddings that see the red of a photo alone: one of length 1, one as it comes."""
    rng, found = np.random.default_rng(4), {}
    for unit in (True, False):
        module = Embedding(unit=unit).eval()
        with torch.no_grad():
            module.features.weight[:, 1:] = 0
            module.head.bias[:] = torch.from_numpy(rng.standard_normal(12)) if unit else 0
            module.features.bias[:] = 0
        path = tmp_path_factory.mktemp("faces") / "face.onnx"
        traced(module, torch.rand(1, 3, 24, 24), path, ["embedding"])
        found[unit] = load(path)
        found["padded"] = inspector.load(
            path,
            device="cpu",
            preprocess="unit",
            overrides=("resize=letterbox",),
            unverified=True,
        )
    return found


@pytest.mark.parametrize(
    "mode", ["one colour", "padded", "other size", "unseen", "grey", "unreadable", "gone"]
)
def test_a_photo_to_compare_with_in_which_nothing_is_seen_is_refused(faces, tmp_path, mode):
    rng = np.random.default_rng(8)
    pixels, path = rng.integers(0, 256, (24, 24, 3), np.uint8), tmp_path / "reference.png"
    other = rng.integers(0, 256, (40, 30, 3), np.uint8)
    refused = "sees nothing in the photo to compare with"
    if mode in ("one colour", "padded"):
        other[:] = (120, 90, 3)
    elif mode == "unseen":  # all that there is lies in channels that the network does not read
        other[..., 0] = 77
    elif mode == "grey":
        other, refused = other[..., 0], ""
    elif mode == "other size":
        refused = ""
    Image.fromarray(other).save(path)
    if mode == "unreadable":
        path.write_bytes(b"no picture")
        refused = "not an image"
    elif mode == "gone":
        path.unlink()
        refused = "no such file"
    if refused:
        model = faces["padded" if mode == "padded" else True]
        with pytest.raises(ImageRefused, match=refused) as caught:
            model.explain(pixels, similar_to=path)
        assert "reference.png" in str(caught.value.where)
        assert caught.value.exit_status == 4
    else:
        report = faces[True].explain(pixels, similar_to=path)
        assert -1 <= report.explanation.attribution.score < 1


def test_vectors_without_a_direction_are_refused(faces):
    black = np.zeros((24, 24, 3), np.uint8)
    pixels = np.random.default_rng(8).integers(0, 256, (24, 24, 3), np.uint8)
    pixels[..., 1:] = 0
    with pytest.raises(ImageRefused, match="no direction: its length is 0"):
        faces[False].explain(pixels, similar_to=black)


def test_a_reference_without_what_is_compared_is_said_to_be_chance(tmp_path):
    """A network that compares red squares: of a photo without one it sees how bright it is."""
    from networks import node, onnx_model

    w = np.zeros((3, 3, 6, 6), np.float32)
    w[0, 0], w[0, 1:], w[1] = 1 / 36, -1 / 36, 0.2 / 108
    proto = onnx_model(
        [
            node("Conv", "x w b", "c", strides=[2, 2]),
            node("Relu", "c", "r"),
            node("GlobalMaxPool", "r", "m"),
            node("Flatten", "m", "f"),
            node("LpNormalization", "f", "embedding", axis=1, p=2),
        ],
        {"x": [1, 3, 24, 24]},
        {"embedding": [1, 3]},
        {"w": w, "b": np.array([-0.4, 0.2, 0.1], np.float32)},
        opset=17,
    )
    path = tmp_path / "net.onnx"
    onnx.save(proto, path)
    model = load(path)
    photos = np.random.default_rng(3).integers(90, 160, (3, 24, 24, 1)).repeat(3, axis=3)
    photos = photos.astype(np.uint8)
    photos[0, 4:12, 6:14], photos[1, 10:18, 2:10] = (255, 0, 0), (230, 30, 30)
    notes = [
        [note for note in explanation.attribution.notes if "may show chance" in note]
        for explanation in (
            model.explain(photos[0], similar_to=other).explanation for other in photos[1:]
        )
    ]
    assert [len(one) for one in notes] == [0, 1]
    assert "is no higher than to 7 pictures" in notes[1][0]
