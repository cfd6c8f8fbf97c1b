"""What a file holds and nothing reads: local functions that no node calls, spare initialisers.

It changes no result, but onnx and ONNX Runtime take time for it that grows faster than the file.
"""

import onnx

from converters.graph import DEFAULT_DOMAINS
from converters.onnx_file.scopes import scopes

__all__ = ["drop_uncalled_functions", "drop_unread_initialisers", "names_read"]

_Key = tuple[str, str, str]


def _key(proto: onnx.NodeProto | onnx.FunctionProto) -> _Key:
    name = proto.name if isinstance(proto, onnx.FunctionProto) else proto.op_type
    return "" if proto.domain in DEFAULT_DOMAINS else proto.domain, name, proto.overload


def drop_uncalled_functions(model: onnx.ModelProto) -> None:
    """Remove local functions that neither the graph nor a function that it calls calls, in place.

    Args:
        model: A model that was examined already.
    """
    if not model.functions:
        return
    known = {_key(function): function for function in model.functions}
    called: set[_Key] = set()
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph]
    while waiting:
        for scope in scopes(waiting.pop()):
            for key in map(_key, scope.proto.node):
                if key in known and key not in called:
                    called.add(key)
                    waiting.append(known[key])
    if len(called) < len(model.functions):
        kept = [function for function in model.functions if _key(function) in called]
        del model.functions[:]
        model.functions.extend(kept)


def names_read(graph: onnx.GraphProto) -> set[str]:
    """Tensors of a main graph that a node, a body or an output names.

    A body that makes a tensor of the same name itself reads its own.
    """
    found = scopes(graph)
    read: dict[int, set[str]] = {}
    for scope in reversed(found):  # bodies before those around them
        names = read.setdefault(id(scope), set())
        names.update(scope.outputs)
        for node in scope.proto.node:
            names.update(node.input)
        if scope.parent is None:
            continue
        names.difference_update(scope.made_outside)
        for node in scope.proto.node:
            names.difference_update(node.output)
        read.setdefault(id(scope.parent), set()).update(read.pop(id(scope)))
    return read[id(found[0])]


def drop_unread_initialisers(graph: onnx.GraphProto) -> None:
    """Remove stored tensors that no node, body or output of a graph names, in place.

    Args:
        graph: A main graph that was examined already. Tensors that a caller may replace (they
            stand among the inputs too) are left.
    """
    read = {value.name for value in graph.input} | names_read(graph)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    if len(kept) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(kept)
