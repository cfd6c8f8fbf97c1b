"""A detector whose right answers are known, in every layout that is read, in plain torch.

Cells of 8 x 8 pixels; a cell's colour is its score: class 0 is red, class 1 green, class 2 blue.
Every cell proposes a box of 24 x 24 pixels around its middle, half of which is its neighbour's.
Nothing of the project is used.
"""

import io
import warnings

import onnx
import torch
from torch import nn

SIDE, CELL, BOX = 64, 8, 24.0
CELLS = SIDE // CELL
COUNT = CELLS * CELLS
COLOURS = ("red", "green", "blue")
GAIN = 12.0


class Detector(nn.Module):
    """Colours of cells as scores; ``layout`` says how they are written down."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.stem = nn.Conv2d(3, 6, CELL, CELL)
        self.head = nn.Conv2d(6, 3, 1)
        with torch.no_grad():
            self.stem.weight.zero_()
            self.stem.bias.zero_()
            self.head.weight.zero_()
            self.head.bias.fill_(-GAIN / 2)
            for k in range(3):  # channel k: this colour; channel 3 + k: the two others
                for c in range(3):
                    self.stem.weight[k if c == k else 3 + k, c] = 1 / CELL**2
                self.head.weight[k, k], self.head.weight[k, 3 + k] = GAIN, -GAIN / 2
        y, x = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="ij")
        centres = torch.stack((x, y), 2).reshape(-1, 2) * CELL + CELL / 2
        self.register_buffer("centres", centres.float())

    def layer(self, x):
        return torch.relu(self.stem(x))

    def logits(self, A):
        """Scores (N, 3, 64) of a layer's values."""
        return self.head(A).flatten(2)

    def forward(self, x):
        z = self.logits(self.layer(x))
        n = z.shape[0]
        boxes = torch.cat((self.centres, torch.full_like(self.centres, BOX)), 1).expand(n, -1, -1)
        corners = torch.cat((self.centres - BOX / 2, self.centres + BOX / 2), 1)
        if self.layout == "columns":
            return torch.cat((boxes.transpose(1, 2), z.sigmoid()), 1)
        if self.layout == "anchors":
            sure = torch.ones_like(boxes[..., :1])
            return torch.cat((boxes, sure, z.sigmoid().transpose(1, 2)), 2)
        if self.layout == "detr":
            return z.transpose(1, 2), boxes / SIDE
        if self.layout == "pairs":
            return z.sigmoid().transpose(1, 2), corners.expand(n, -1, -1) / SIDE
        best, kind = z.sigmoid()[0].max(0)
        score, row = best.topk(5)
        if self.layout == "listed":
            return corners[row], score, kind[row]
        rows = torch.cat((corners[row], score[:, None], kind[row][:, None].float()), 1)
        return rows[None]


OUTPUTS = {
    "columns": ["output0"],
    "anchors": ["output"],
    "detr": ["logits", "pred_boxes"],
    "pairs": ["scores", "boxes"],
    "listed": ["boxes", "scores", "labels"],
    "combined": ["output0"],
}


def traced(module, example, path, outputs, *, free=None):
    """Export a module by tracing; ``free`` are names of outputs whose first axis is free."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            path,
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            output_names=outputs,
            dynamic_axes={name: {0: "n"} for name in free or ()},
        )


def exported(layout, path):
    """The detector as an ONNX file with its class names."""
    module, file = Detector(layout).eval(), io.BytesIO()
    names = OUTPUTS[layout]
    example = torch.rand(1, 3, SIDE, SIDE)
    traced(module, example, file, names, free=names if layout == "listed" else ())
    proto = onnx.ModelProto.FromString(file.getvalue())
    entry = proto.metadata_props.add()
    entry.key, entry.value = "names", str(dict(enumerate(COLOURS)))
    onnx.save(proto, path)
    return module


class Pyramid(nn.Module):
    """Two levels with outputs of their own, as SCRFD writes them: one for red, one for green.

    Every cell of stride s proposes a box that reaches 1.5 s to each side of its upper left corner.
    """

    STRIDES = (8, 16)

    def __init__(self):
        super().__init__()
        self.stems = nn.ModuleList(nn.Conv2d(3, 2, s, s) for s in self.STRIDES)
        self.heads = nn.ModuleList(nn.Conv2d(2, 1, 1) for _ in self.STRIDES)
        with torch.no_grad():
            for colour, (stem, head) in enumerate(zip(self.stems, self.heads, strict=True)):
                stem.weight.zero_()
                stem.bias.zero_()
                head.bias.fill_(-GAIN / 2)
                for c in range(3):  # channel 0: the level's colour; channel 1: the two others
                    stem.weight[int(c != colour), c] = 1 / self.STRIDES[colour] ** 2
                head.weight[0, 0], head.weight[0, 1] = GAIN, -GAIN / 2

    def layer(self, x, level):
        return torch.relu(self.stems[level](x))

    def logits(self, A, level):
        """Scores (N, A, 1) of a level's values."""
        return self.heads[level](A).flatten(2).transpose(1, 2)

    def forward(self, x):
        scores = [self.logits(self.layer(x, level), level).sigmoid() for level in (0, 1)]
        return (*scores, *(z.new_full((*z.shape[:2], 4), 1.5) + 0 * z for z in scores))


def pyramid(path):
    """The pyramid as an ONNX file."""
    module = Pyramid().eval()
    names = [f"{part}_{s}" for part in ("score", "bbox") for s in Pyramid.STRIDES]
    traced(module, torch.rand(1, 3, SIDE, SIDE), path, names)
    return module
