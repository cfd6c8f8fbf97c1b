"""What the twin costs beside PyTorch itself: dispatch, conversion, memory of a backward pass.

python benchmarks/twin.py

Dispatch is the time of a chain of one-element operators in the twin less that of the same torch
calls in a plain loop, per node.  Conversion is `Program(graph)` with its first plan and constants,
beyond reading the file.  Memory is the growth of the resident set over one forward and backward
pass of ResNet-50 (224 x 224, batch 8), each in a process of its own.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

CHAIN = 2000
BATCH = 8


def chain():  # noqa: ANN201 - an onnx model
    """A chain of cheap operators of several signatures."""
    import onnx
    from onnx import helper

    nodes, name = [], "x"
    for index in range(CHAIN):
        out = f"t{index}"
        kind = ("Relu", "Add", "Clip", "Mul")[index % 4]
        inputs = {"Add": [name, "one"], "Mul": [name, "one"], "Clip": [name, "low", "high"]}
        nodes.append(helper.make_node(kind, inputs.get(kind, [name]), [out]))
        name = out
    values = {"one": 1.0, "low": -5.0, "high": 5.0}
    weights = [onnx.numpy_helper.from_array(np.float32(v), n) for n, v in values.items()]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), name


def dispatch() -> float:
    """Microseconds a node beyond the torch call, best of several runs."""
    import torch

    from converters.to_torch import Program

    model, last = chain()
    program = Program(model)
    x, one = torch.ones(1), torch.tensor(1.0)
    low, high = torch.tensor(-5.0), torch.tensor(5.0)

    def plain() -> None:
        y = x
        for index in range(CHAIN):
            kind = index % 4
            if kind == 0:
                y = torch.relu(y)
            elif kind == 1:
                y = torch.add(y, one)
            elif kind == 2:
                y = torch.clamp(y, low, high)
            else:
                y = torch.mul(y, one)

    def best(call) -> float:  # noqa: ANN001 - a function
        call()
        times = []
        for _ in range(15):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    with torch.no_grad():
        ours = best(lambda: program.run({"x": x}, [last]))
        theirs = best(plain)
    return (ours - theirs) / CHAIN * 1e6


def conversion(path: Path) -> tuple[float, float]:
    """Seconds to read the file, and seconds to build the twin with all constants."""
    from converters import onnx_file
    from converters.to_torch import Program

    start = time.perf_counter()
    graph = onnx_file.read(path).graph
    read = time.perf_counter() - start
    start = time.perf_counter()
    program = Program(graph)
    program.plan([next(iter(graph.inputs))], list(graph.outputs))
    return read, time.perf_counter() - start


MEMORY = """
import sys, resource, torch, numpy as np
sys.path.insert(0, {tests!r})
torch.set_num_threads(2)
x = torch.randn({batch}, 3, 224, 224, requires_grad=True)
if {ours!r}:
    from converters import onnx_file
    from converters.to_torch import Program
    graph = onnx_file.read({path!r}).graph
    program = Program(graph)
    source, target = next(iter(graph.inputs)), next(iter(graph.outputs))
    program.plan([source], [target])
    forward = lambda: program.run({{source: x}}, [target])[target]
else:
    from torchvision_loader import load_torchvision
    torch.manual_seed(0)
    module = load_torchvision().models.resnet50(weights=None).eval().requires_grad_(False)
    forward = lambda: module(x)
def resident():
    with open("/proc/self/statm") as f: return int(f.read().split()[1]) * 4096
with torch.no_grad(): forward()
before = resident()
torch.autograd.grad(forward()[:, 7].sum(), x)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


def memory(path: Path, *, ours: bool) -> float:
    """Growth to the peak over one backward pass, in MiB."""
    tests = Path(__file__).parents[1] / "tests"
    code = MEMORY.format(tests=str(tests), path=str(path), ours=ours, batch=BATCH)
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1]) / 2**20


def main() -> None:
    """Print the three figures."""
    sys.path.insert(0, str(Path(__file__).parent / "costs"))
    from networks import made

    print(f"dispatch: {dispatch():.2f} us a node beyond the torch call")
    with tempfile.TemporaryDirectory() as name:
        network = made("ResNet-50", Path(name))
        if network is None:
            sys.exit("torchvision is not installed")
        path = network.path
        read, build = conversion(path)
        size = path.stat().st_size / 1e6
        print(f"conversion of {size:.0f} MB: {build:.2f} s, beyond {read:.2f} s of reading it")
        ours, theirs = memory(path, ours=True), memory(path, ours=False)
        print(
            f"peak of a backward pass, ResNet-50, batch {BATCH}: {ours:.0f} MiB,"
            f" native torch {theirs:.0f} MiB, ratio {ours / theirs:.2f}"
        )


if __name__ == "__main__":
    main()
