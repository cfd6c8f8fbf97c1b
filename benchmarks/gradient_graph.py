"""Gradients in ONNX Runtime: what they cost in forward passes, beside the twin and captum.

python benchmarks/gradient_graph.py [MODEL.onnx ...] [--rounds N]

CPU seconds at one thread, measured in turn within each round; F is one forward pass of the
untouched model in ONNX Runtime, and what is printed is the ratio of medians, with quartiles.
Without a file the network is torchvision's ResNet-50 with random weights (batch 1, 224 x 224), and
captum's guided backpropagation, deconvnet and Grad-CAM of the module itself run beside it where
captum is installed.
"""

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy and torch start theirs

import numpy as np

METHODS = ("grad-cam", "gradient", "guided-backprop", "deconvnet")
ENGINES = ("onnx", "twin")

Run = Callable[[], object]


def one_thread() -> None:
    """Have every session of ONNX Runtime work on one thread."""
    from inspector.engines.runtime import Runtime

    made = Runtime.__init__

    def narrow(self, file, **settings):  # noqa: ANN001, ANN003, ANN202
        made(self, file, **settings | {"threads": 1})

    Runtime.__init__ = narrow


def runs_of(path: Path, module) -> dict[str, Run]:  # noqa: ANN001 - a torch module or None
    """What is timed on one file, by name; the first is F."""
    import onnxruntime

    import inspector
    from inspector.errors import ConverterError, InspectorError

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(str(path), settings, ["CPUExecutionProvider"])
    found: dict[str, Run] = {}
    for engine in ENGINES:
        for method in METHODS:
            # A model each: what one method has the session keep would slow down another.
            opened = inspector.load(
                path, device="cpu", preprocess="unit", engine=engine, unverified=True
            )
            image = opened.input
            size = (1, image.channels, *opened.size())
            x = np.random.default_rng(0).random(size).astype(np.float32)
            feed = opened.model.feeds(image.arrange(x))
            found.setdefault("F", lambda feed=feed: session.run(None, feed))
            target = "7" if opened.scores.classifier else "top1"

            def run(opened=opened, method=method, x=x, target=target):  # noqa: ANN001, ANN202
                return opened.attribute(x, method, target=target)

            try:
                run()
            except (ConverterError, InspectorError) as error:
                print(f"  {engine} {method}: {str(error).splitlines()[0]}")
                continue
            found[f"{engine} {method}"] = run
    return found | captums(module)


def captums(module) -> dict[str, Run]:  # noqa: ANN001
    """The same by captum, of the module itself."""
    if module is None:
        return {}
    try:
        import captum.attr
    except ImportError:
        print("  captum is not installed")
        return {}
    import torch

    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    guided, deconvnet = captum.attr.GuidedBackprop(module), captum.attr.Deconvolution(module)
    layer = captum.attr.LayerGradCam(module, module.layer4[-1])
    return {
        "captum grad-cam": lambda: layer.attribute(x, 7),
        "captum guided-backprop": lambda: guided.attribute(x.clone().requires_grad_(), 7),
        "captum deconvnet": lambda: deconvnet.attribute(x.clone().requires_grad_(), 7),
    }


def measure(runs: dict[str, Run], rounds: int) -> None:
    """Print the ratio of each to the first."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            spent[name].append(time.process_time() - start)
    unit = float(np.median(spent["F"]))
    for name, found in spent.items():
        low, median, high = np.quantile(found, (0.25, 0.5, 0.75))
        spread = f"({low / unit:.2f} to {high / unit:.2f})"
        print(f"  {name:26} {median * 1e3:8.1f} ms  {median / unit:6.2f} F  {spread}", flush=True)


def main() -> None:
    """Print one table per file."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=11)
    asked = parser.parse_args()
    one_thread()
    with tempfile.TemporaryDirectory() as folder:
        if asked.models:
            todo = [(path, None) for path in asked.models]
        else:
            import torch

            sys.path.insert(0, str(Path(__file__).parent))
            from cam import resnet50

            torch.set_num_threads(1)
            module, path = resnet50(Path(folder))
            todo = [(path, module)]
        for path, module in todo:
            print(path.name, flush=True)
            measure(runs_of(path, module), asked.rounds)


if __name__ == "__main__":
    main()
