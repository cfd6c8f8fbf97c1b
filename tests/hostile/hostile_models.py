"""Hostile and harmless models, built on the spot."""

from onnx import ModelProto, TensorProto, helper

OPSETS = [helper.make_opsetid("", 17)]
FLOAT = TensorProto.FLOAT


def model(nodes, initialisers=(), *, outputs=("y",), functions=(), opsets=(), inputs=("x",)):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, FLOAT, [1, 4]) for name in inputs],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        list(initialisers),
    )
    return helper.make_model(
        graph, opset_imports=[*OPSETS, *opsets], functions=list(functions), ir_version=9
    )


def small() -> ModelProto:
    """A harmless model with a weight, an attribute and metadata."""
    weight = helper.make_tensor("w", FLOAT, [4, 2], [0.5] * 8)
    made = model(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
            helper.make_node("Softmax", ["h"], ["y"], name="last", axis=1),
        ],
        [weight],
    )
    helper.set_model_props(made, {"task": "test"})
    return made


def external(location, *, length=32, offset=0, extra=(), dims=(4, 2)) -> ModelProto:
    """A model whose weight says that it lies in another file."""
    made = small()
    weight = made.graph.initializer[0]
    weight.Clear()
    weight.name, weight.data_type = "w", FLOAT
    weight.dims.extend(dims)
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length), *extra):
        if value is not None:
            weight.external_data.add(key=key, value=str(value))
    return made


def function_bomb(depth: int, width: int = 2) -> ModelProto:
    """Functions that each call the next ``width`` times: width ** depth nodes."""
    functions = []
    for level in range(depth):
        last = level == depth - 1
        op, domain = ("Relu", "") if last else (f"f{level + 1}", "local")
        names = ["a", *(f"t{i}" for i in range(width - 1)), "b"]
        nodes = [
            helper.make_node(op, [names[i]], [names[i + 1]], domain=domain) for i in range(width)
        ]
        functions.append(
            helper.make_function(
                "local",
                f"f{level}",
                ["a"],
                ["b"],
                nodes,
                [*OPSETS, helper.make_opsetid("local", 1)],
            )
        )
    call = helper.make_node("f0", ["x"], ["y"], domain="local")
    return model([call], functions=functions, opsets=[helper.make_opsetid("local", 1)])


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, payload: bytes) -> bytes:
    """One length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def nested(depth: int) -> bytes:
    """A model with ``depth`` bodies inside one another, which no protobuf library would write."""
    graph = field(2, b"leaf")
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        graph = field(1, field(4, b"If") + field(5, attribute))
    return b"\x08\x09" + field(7, graph)


def bomb(kind: str, elements: int = 10**12) -> ModelProto:
    """A model of a few hundred bytes that asks for 10^12 elements, or never ends."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [elements])
    one = helper.make_tensor("one", FLOAT, [1], [1.0])
    initialisers = [shape, one]
    if kind == "Loop":
        values = [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, [1]),
        ]
        results = [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", FLOAT, [1]),
        ]
        steps = [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Add", ["v", "v"], ["more"]),
        ]
        body = helper.make_graph(steps, "body", values, results)
        initialisers += [
            helper.make_tensor("turns", TensorProto.INT64, [], [2**62]),
            helper.make_tensor("true", TensorProto.BOOL, [], [True]),
        ]
        node = helper.make_node("Loop", ["turns", "true", "one"], ["big"], body=body)
    elif kind == "ConstantOfShape":
        node = helper.make_node(kind, ["shape"], ["big"])
    else:
        node = helper.make_node(kind, ["one", "shape"], ["big"])
    tail = [
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return model([node, *tail], initialisers)
