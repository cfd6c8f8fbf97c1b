"""Readers of text: characters of a planted line."""

import numpy as np
import pytest
import torch
from detectors import traced
from planted_tasks import CLOSE, load
from torch import nn

from inspector.errors import ImageRefused


class Reader(nn.Module):
    """Colours of columns as characters: class 0 is blank, 1 red, 2 green, 3 blue."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.stem = nn.Conv2d(3, 4, (16, 8), (16, 8))
        with torch.no_grad():
            self.stem.weight.fill_(0)
            self.stem.bias.copy_(torch.tensor([3.0, 0, 0, 0]))
            for k in range(3):
                for c in range(3):
                    self.stem.weight[1 + k, c] = (8.0 if c == k else -4.0) / 128

    def layer(self, x):
        return torch.relu(self.stem(x))

    def scores(self, A):
        return 2 * A.mean(2).transpose(1, 2)  # (N, T, 4)

    def forward(self, x):
        z = self.scores(self.layer(x))
        if self.layout == "steps first":
            return z.transpose(0, 1).log_softmax(2)
        if self.layout == "classes first":
            return z.softmax(2).transpose(1, 2)
        return z.softmax(2) if self.layout == "probabilities" else z


def line_of(text):
    """A picture whose columns of 8 pixels have the colours of a text; a dot is grey."""
    pixels = np.full((16, 8 * len(text), 3), 90, np.uint8)
    for step, letter in enumerate(text):
        if letter != ".":
            pixels[:, 8 * step : 8 * step + 8] = 20
            pixels[:, 8 * step : 8 * step + 8, "RGB".index(letter)] = 240
    return pixels


@pytest.mark.parametrize("layout", ["probabilities", "steps first", "classes first", "scores"])
def test_characters_are_read_and_explained_one_by_one(tmp_path, layout):
    module, path = Reader(layout).eval(), tmp_path / "reader.onnx"
    pixels = line_of("RR.R.GB..B")
    x = torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))
    traced(module, x, path, ["text"])
    model = load(path, labels=["R", "G", "B"])
    task = "sequence" if layout == "scores" else None  # nothing says that these are classes
    report = model.explain(pixels, task=task)
    assert [i["label"] for i in report.images[0].items] == [
        "char:1 R",
        "char:2 R",
        "char:3 G",
        "char:4 B",
        "char:5 B",
    ]
    steps = [0, 3, 5, 6, 9]
    A = module.layer(x).detach().requires_grad_()
    for found, step, number in zip(report.explanations, steps, (1, 1, 2, 3, 3), strict=True):
        score = module.scores(A)[0, step, number]
        (g,) = torch.autograd.grad(score, A)
        wanted = np.maximum((g * A).sum(1)[0].detach().numpy(), 0)
        assert found.attribution.method == "hires-cam"
        assert found.attribution.score == pytest.approx(float(score.detach()), rel=1e-4)
        np.testing.assert_allclose(found.attribution.values, wanted, atol=CLOSE * wanted.max())
        assert found.attribution.values.argmax() == step
    for text, label in (("char:3", "char:3 G"), ("R#2", "char:2 R"), ("B", "char:4 B")):
        one = model.explain(pixels, target=text, task=task).explanation.attribution
        assert one.label == label
    with pytest.raises(ImageRefused, match="RRGBB"):
        model.explain(pixels, target="char:6", task=task)
    with pytest.raises(ImageRefused, match="no character"):
        model.explain(line_of(".........."), task=task)


class Table(nn.Module):
    """Rows of 12 classes: steps along the image, slots that see all of it, or cells of a grid."""

    def __init__(self, kind, *, soft):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.soft = kind, soft
        self.stem = nn.Conv2d(3, 12, 8, 8)
        self.along = nn.LSTM(24, 6, bidirectional=True)
        self.slots = nn.Linear(40, 7)

    def forward(self, x):
        A = torch.relu(self.stem(x))  # (N, 12, 2, 20)
        z = A.mean(2).transpose(1, 2)
        if self.kind == "recurrent":
            z = self.along(A.permute(3, 0, 1, 2).flatten(2))[0].transpose(0, 1)
        elif self.kind == "slots":
            z = self.slots(A.flatten(2)).transpose(1, 2)
        elif self.kind == "cells":
            z = A.flatten(2).transpose(1, 2)
        return z.softmax(2) if self.soft else z


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("kind", ["steps", "recurrent", "slots", "cells"])
def test_rows_are_text_only_where_they_follow_the_image(tmp_path, kind, soft):
    path = tmp_path / "table.onnx"
    traced(Table(kind, soft=soft).eval(), torch.zeros(1, 3, 16, 160), path, ["out"])
    found = load(path).reading()
    if kind == "slots" and not soft:
        assert found is None
    elif kind == "cells":
        assert found is None if not soft else (found.task, found.grid) == ("segmenter", (2, 20))
    else:
        assert (found.task, found.slots) == ("sequence", kind == "slots")
        assert ("do not follow the image" in found.why) == (kind == "slots")
        assert ("because its steps follow the image" in found.why) == (not soft)


def test_rows_of_their_own_are_read_one_by_one(tmp_path):
    """Two rows of one class are two items, and none is a blank."""

    class Slots(Reader):
        def __init__(self):
            super().__init__("probabilities")
            rows = torch.full((10, 3), 0.001)
            rows[[1, 2, 7], [0, 1, 2]] = 1  # row 0 looks at column 1, and so on
            self.register_buffer("pick", rows)

        def scores(self, A):
            return 2 * (A.mean(2) @ self.pick).transpose(1, 2)

    path = tmp_path / "slots.onnx"
    pixels = line_of(".RR....B..")
    traced(Slots().eval(), torch.zeros(1, 3, 16, 80), path, ["slots"])
    model = load(path, labels=["-", "R", "G", "B"])
    report = model.explain(pixels)
    assert [item["label"] for item in report.images[0].items] == ["row:1 R", "row:2 R", "row:3 B"]
    assert all(item["box"] is None for item in report.images[0].items)
    columns = [found.attribution.values.argmax() for found in report.explanations]
    assert columns == [1, 2, 7]
    one = model.explain(pixels, target="row:3").explanation.attribution
    assert one.label == "row:3 B"
    with pytest.raises(ImageRefused, match="row:4"):
        model.explain(pixels, target="row:4")
