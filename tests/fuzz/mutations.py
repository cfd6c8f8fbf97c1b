"""Structural mutation of a model, of the files beside it and of the options of a command.

A mutant is told by its seed alone: the same seed makes the same mutant.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx
from onnx import TensorProto
from seeds import BREAKERS, CLASSES, NETWORKS, SIDE, side_files

__all__ = ["mutant"]

NUMBERS = (0, 1, -1, 2, 3, 7, 64, -64, 127, 255, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63))
TEXTS = (
    "",
    " ",
    "x",
    "y",
    "r1",
    "\x1b[2J",
    "a" * 300,
    "\u202e",
    "\U0001f0a1",
    "../x",
    "NOTSET",
    "SAME_UPPER",
)
OPERATORS = (
    *("Relu", "Sigmoid", "Softmax", "Clip", "Add", "Mul", "Concat", "Flatten", "Reshape", "Cast"),
    *("Transpose", "Squeeze", "Pad", "Slice", "Resize", "MaxPool", "LpPool", "Gather", "Where"),
    *("ReduceMean", "ArgMax", "TopK", "Loop", "If", "ConvTranspose", "DepthToSpace", "MatMul"),
    *("InstanceNormalization", "LRN", "Einsum", "NonMaxSuppression", "DynamicQuantizeLinear"),
)
Change = Callable[[random.Random, onnx.ModelProto], None]


def _graphs(model: onnx.ModelProto) -> list[onnx.GraphProto | onnx.FunctionProto]:
    found: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    for graph in found:
        for node in graph.node:
            found += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return found


def _node(rng: random.Random, model: onnx.ModelProto) -> onnx.NodeProto | None:
    nodes = [node for graph in _graphs(model) for node in graph.node]
    return rng.choice(nodes) if nodes else None


def _tensor(rng: random.Random, model: onnx.ModelProto) -> onnx.TensorProto | None:
    return rng.choice(model.graph.initializer) if model.graph.initializer else None


def _names(model: onnx.ModelProto) -> list[str]:
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    return [*names, *(tensor.name for tensor in model.graph.initializer), *TEXTS]


def attribute(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another value, type or name of an attribute."""
    node = _node(rng, model)
    if node is None or not node.attribute:
        return
    one = rng.choice(node.attribute)
    if one.ints and rng.random() < 0.7:
        one.ints[rng.randrange(len(one.ints))] = rng.choice(NUMBERS)
    elif one.ints:
        del one.ints[rng.randrange(len(one.ints)) :]
    elif one.type == onnx.AttributeProto.INT:
        one.i = rng.choice(NUMBERS)
    elif one.type == onnx.AttributeProto.FLOAT:
        one.f = rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    elif one.type == onnx.AttributeProto.STRING:
        one.s = rng.choice(TEXTS).encode()
    elif rng.random() < 0.3:
        one.type = rng.randrange(15)
    else:
        one.name = rng.choice(("axis", "perm", "pads", "strides", "to", "value", ""))


def new_attribute(rng: random.Random, model: onnx.ModelProto) -> None:
    """An attribute more."""
    node = _node(rng, model)
    if node is not None:
        name = rng.choice(
            ("axis", "axes", "pads", "strides", "group", "p", "keepdims", "dilations")
        )
        values = [rng.choice(NUMBERS) for _ in range(rng.randrange(1, 5))]
        node.attribute.add(name=name, type=onnx.AttributeProto.INTS, ints=values)


def wiring(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another input or output of a node, one more or one fewer."""
    node = _node(rng, model)
    if node is None:
        return
    side = rng.choice((node.input, node.input, node.output))
    name = rng.choice(_names(model))
    choice = rng.random()
    if side and choice < 0.6:
        side[rng.randrange(len(side))] = name
    elif side and choice < 0.8:
        del side[rng.randrange(len(side))]
    else:
        side.append(name)


def operator(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another operator, or one of another domain."""
    node = _node(rng, model)
    if node is None:
        return
    if rng.random() < 0.9:
        node.op_type = rng.choice(OPERATORS)
    else:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "custom", "local"))


def nodes(rng: random.Random, model: onnx.ModelProto) -> None:
    """A node twice, gone, or elsewhere."""
    graph = rng.choice(_graphs(model))
    if not graph.node:
        return
    at = rng.randrange(len(graph.node))
    copy = onnx.NodeProto()
    copy.CopyFrom(graph.node[at])
    if rng.random() < 0.5:
        del graph.node[at]
    if rng.random() < 0.6:
        graph.node.append(copy)


def dims(rng: random.Random, model: onnx.ModelProto) -> None:
    """Other dimensions of a tensor, of an input or of an output."""
    tensor = _tensor(rng, model)
    if tensor is not None and tensor.dims and rng.random() < 0.5:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
        return
    values = (*model.graph.input, *model.graph.output)
    shape = rng.choice(values).type.tensor_type.shape if values else None
    if shape is None or not shape.dim:
        return
    dim = rng.choice(shape.dim)
    if rng.random() < 0.3:
        dim.dim_param = rng.choice(TEXTS)
    elif rng.random() < 0.3:
        del shape.dim[-1]
    else:
        dim.dim_value = rng.choice(NUMBERS)


def data(rng: random.Random, model: onnx.ModelProto) -> None:
    """Other values, another type, or data elsewhere."""
    tensor = _tensor(rng, model)
    if tensor is None:
        return
    choice = rng.random()
    if choice < 0.3:
        tensor.data_type = rng.randrange(28)
    elif choice < 0.7 and tensor.raw_data:
        content = bytearray(tensor.raw_data)
        for _ in range(rng.randrange(1, 9)):
            content[rng.randrange(len(content))] = rng.choice((0, 127, 128, 255))
        tensor.raw_data = bytes(content)
    elif choice < 0.8:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    else:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        places = ("data.bin", "../data.bin", "/etc/passwd", "link.bin", "fifo", "", "x" * 300)
        tensor.external_data.add(key="location", value=rng.choice(places))
        for key in ("offset", "length"):
            if rng.random() < 0.6:
                value = rng.choice((*map(str, NUMBERS), "1e9", ""))
                tensor.external_data.add(key=key, value=value)


def naming(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another name of a node, a tensor, an input or the graph."""
    things = [*model.graph.node, *model.graph.initializer, *model.graph.input, model.graph]
    rng.choice(things).name = rng.choice(TEXTS)


def header(rng: random.Random, model: onnx.ModelProto) -> None:
    """Other versions, outputs and metadata."""
    choice = rng.random()
    if choice < 0.3 and model.opset_import:
        rng.choice(model.opset_import).version = rng.choice((0, 1, 6, 9, 11, 13, 18, 21, 99, -1))
    elif choice < 0.4:
        model.ir_version = rng.choice((0, 3, 4, 8, 10, 999))
    elif choice < 0.6:
        model.graph.output.add(name=rng.choice(_names(model)))
    elif choice < 0.7 and model.graph.output:
        del model.graph.output[:]
    else:
        keys = (
            "imgsz",
            "names",
            "stride",
            "labels",
            "classes",
            "input_size",
            "mean",
            "std",
            "task",
        )
        values = ("1e999", "[nan]", "{}", "[" * 400, "-1", "9" * 400, "{0: 'a', 0: 'b'}", "\x00")
        entry = model.metadata_props.add()
        entry.key, entry.value = rng.choice(keys), rng.choice(values)


CHANGES: Sequence[Change] = (
    *(attribute, attribute, attribute, new_attribute, wiring, wiring, wiring, operator, operator),
    *(nodes, dims, dims, data, data, naming, header),
)


def _options(rng: random.Random) -> Iterator[str]:
    """Options of the opening, most of them wrong."""
    choice = rng.random()
    if choice < 0.6:
        return
    numbers = ("0", "-1", "nan", "inf", "1e300", "1e-9", "9" * 400, "x")
    options = {
        "--preprocess": ("imagenet", "recipe.toml", "preprocessor_config.json", "fifo", "nosuch"),
        "--labels": ("labels.txt", "fifo", "data.bin", "nosuch"),
        "--set": (*(f"mean={n},{n},{n}" for n in numbers), "size=[[[[", "resize=crop", "=", "a=b"),
        "--timeout": numbers,
    }
    name = rng.choice(tuple(options))
    yield from (name, rng.choice(options[name]))


def _command(rng: random.Random) -> list[str]:
    method = rng.choice(("cam", "grad-cam", "gradient", "guided-backprop", "occlusion:window=9999"))
    target = rng.choice(
        ("top1", "0", str(CLASSES), "-1", "y[0]", "y[0,0,0,0]", "x" * 50, "9" * 400)
    )
    layer = rng.choice(("last", "0", "-1", "9" * 50, "r1", "nosuch"))
    explain = ["explain", "model.onnx", "photo.png", "-m", method, "-o", "out", "--target", target]
    return rng.choice(
        (
            ["layers", "model.onnx"],
            ["layers", "model.onnx"],
            ["layers", "model.onnx"],
            ["check", "model.onnx"],
            [*explain, "--layer", layer],
            ["explain", "model.onnx", "photo.png", "-m", method, "-o", "out"],
        )
    )


def mutant(seed: int, folder: Path) -> list[str]:
    """Write one mutant with its side files into an empty folder.

    Args:
        seed: Tells the mutant.
        folder: Empty.

    Returns:
        The arguments of ``inspector``, to be run in the folder.
    """
    from PIL import Image

    rng = random.Random(seed)  # noqa: S311 - for repeating, not for secrets
    breaker = rng.random() < 0.05
    model = BREAKERS[rng.choice(tuple(BREAKERS))]() if breaker else None
    if model is None:
        model = NETWORKS[rng.choice(tuple(NETWORKS))]()
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            rng.choice(CHANGES)(rng, model)
    side_files(folder)
    content = bytearray(model.SerializeToString())
    if rng.random() < 0.1:  # bytes, too
        for _ in range(rng.randrange(1, 6)):
            content[rng.randrange(len(content))] = rng.randrange(256)
    (folder / "model.onnx").write_bytes(bytes(content))
    (folder / "link.bin").symlink_to("/etc/hostname")
    _make_fifo(folder / "fifo")
    photo = Image.new("RGB", (SIDE + 3, SIDE), (200, 40, 90))
    photo.paste((10, 200, 10), (2, 2, 7, 8))
    photo.save(folder / "photo.png")
    if rng.random() < 0.08:
        picture = bytearray((folder / "photo.png").read_bytes())
        picture[rng.randrange(len(picture))] ^= 1 << rng.randrange(8)
        (folder / "photo.png").write_bytes(bytes(picture))
    if rng.random() < 0.1:
        name = rng.choice(("labels.txt", "recipe.toml", "preprocessor_config.json"))
        texts = ('"', "[" * 2000, "9" * 4000, "\x00", "mean = [", '{"size": 1e999}', "a,b\n" * 999)
        (folder / name).write_text(rng.choice(texts))
    return [*_command(rng), *_options(rng)]


def _make_fifo(path: Path) -> None:
    import os

    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
