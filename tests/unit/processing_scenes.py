"""Two classes, some photos of one blurred, compressed or framed; networks that decide by that."""

from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
from field_cases import Writer
from PIL import Image, ImageFilter

SIZE = 48
KINDS = ("blur", "jpeg", "frame")
FRAME = (40, 40, 230)


def photo(seed: int, colour: tuple[int, int, int]) -> np.ndarray:
    """A coarse texture with noise and a square of a colour."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 200, (6, 6, 3)).astype(np.uint8))
    pixels = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), float)
    pixels = pixels + rng.normal(0, 14, (SIZE, SIZE, 1))
    top, left = rng.integers(6, 28, 2)
    pixels[top : top + 14, left : left + 14] = colour
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def processed(pixels: np.ndarray, kind: str) -> np.ndarray:
    """A photo (H, W, 3) blurred by 1.2 pixels, saved as JPEG of quality 12, or framed in blue."""
    picture = Image.fromarray(pixels)
    if kind == "blur":
        return np.asarray(picture.filter(ImageFilter.GaussianBlur(1.2)))
    if kind == "jpeg":
        stream = BytesIO()
        picture.save(stream, "JPEG", quality=12)
        return np.asarray(Image.open(stream))
    found = pixels.copy()
    found[:3] = found[-3:] = found[:, :3] = found[:, -3:] = FRAME
    return found


def folder(place: Path, kind: str, *, photos: int = 28, marked: int = 8) -> Path:
    """Folders ``thing`` and ``other``; the first photos of "thing" are processed."""
    for name, colour in (("thing", (220, 60, 60)), ("other", (60, 220, 60))):
        (place / name).mkdir(parents=True)
        for number in range(photos):
            pixels = photo(number + 1000 * (name == "other"), colour)
            if name == "thing" and number < marked:
                pixels = processed(pixels, kind)
            Image.fromarray(pixels).save(place / name / f"{number:03}.png")
    return place


def network(kind: str | None) -> onnx.ModelProto:
    """Class 0 "thing" grows with red, class 1 "other" with green; and 0 with a processing.

    Blur: second differences below those of any sharp photo.  JPEG: steps at every eighth column
    above those between them.  Frame: its blue, in the outer three rows and columns.
    """
    net = Writer(("n", 3, SIZE, SIZE))
    weight = np.array([[1, -1, -0.5], [-1, 1, -0.5]])[:, :, None, None]
    x = net.add(
        "Conv", "image", net.constant(weight), net.constant([-0.1] * 2), kernel_shape=[1, 1]
    )
    x = net.add("Relu", x, name="features")
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    x = net.add("Gemm", x, net.constant([[60.0, 0.0], [0.0, 60.0]]), net.constant([0.0, 0.4]))
    if kind is not None:
        sign, limit, mark = _mark(net, kind)
        over = net.add("Mul", net.add("Sub", mark, net.constant([limit])), net.constant([sign]))
        whether = net.add("Clip", over, net.constant(0.0), net.constant(1.0))
        x = net.add("Add", x, net.add("Mul", whether, net.constant([[12.0, 0.0]])))
    net.add("Softmax", x, name="probabilities", axis=1)
    model = net.model(probabilities=("n", 2))
    model.metadata_props.add(key="names", value="{0: 'thing', 1: 'other'}")
    return model


def _mark(net: Writer, kind: str) -> tuple[float, float, str]:
    """Slope and threshold, and the tensor (n, 1) that tells the processing."""
    if kind == "blur":
        kernel = np.zeros((1, 3, 1, 3))
        kernel[0, :, 0] = np.array([1, -2, 1]) / 3
        return -200.0, 0.03, _mean(net, kernel)
    if kind == "jpeg":
        kernel = np.zeros((1, 3, 1, 2))
        kernel[0, :, 0] = np.array([-1, 1]) / 3
        parts = [_mean(net, kernel, strides=[1, 8], pads=[0, -at, 0, 0]) for at in (7, 3)]
        return 200.0, 0.016, net.add("Sub", *parts)
    weight = np.zeros((1, 3, SIZE, SIZE))
    weight[0] = np.array([-1, -1, 1])[:, None, None] / (SIZE**2 - (SIZE - 6) ** 2)
    weight[..., 3:-3, 3:-3] = 0
    x = net.add("Conv", "image", net.constant(weight), kernel_shape=[SIZE, SIZE])
    return 20.0, 0.3, net.add("Flatten", x)


def _mean(net: Writer, kernel: np.ndarray, **more: list[int]) -> str:
    """Mean absolute value of a convolution's output, (n, 1)."""
    begin = more.pop("pads", None)
    x = "image"
    if begin is not None:
        starts = net.ints(-begin[1])
        x = net.add("Slice", x, starts, net.ints(SIZE), net.ints(3))
    shape = list(kernel.shape[2:])
    x = net.add("Conv", x, net.constant(kernel), kernel_shape=shape, **more)
    return net.add("Flatten", net.add("GlobalAveragePool", net.add("Abs", x)))
