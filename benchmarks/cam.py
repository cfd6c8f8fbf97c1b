"""What a heatmap costs, in forward passes, beside the peers: ratios of one run.

python benchmarks/cam.py [ROUNDS]

F is one ONNX Runtime forward pass of the untouched model.  Everything is measured in turn within
each round, and the ratio of medians is printed, because absolute times on a shared machine say
little.  The network is torchvision's ResNet-50 with random weights, batch 1, 224 x 224.
"""

import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 15
HEAVY = ("torch", "onnxruntime")


def resnet50(folder: Path):  # noqa: ANN201 - a torch module and a path
    """Torchvision's ResNet-50 and its ONNX file."""
    import torch

    from converters.to_onnx.pytorch.export import export_module

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from torchvision_loader import load_torchvision

    torch.manual_seed(0)
    module = load_torchvision().models.resnet50(weights=None).eval()
    path = folder / "resnet50.onnx"
    export_module(module, torch.zeros(1, 3, 224, 224), path)
    return module, path


def contenders(module, path: Path) -> dict[str, Callable[[], object]]:  # noqa: ANN001
    """What is timed, by name; the first is F."""
    import captum.attr
    import onnxruntime
    import pytorch_grad_cam
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    import inspector

    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    tensor = torch.from_numpy(x)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    ours = inspector.load(path, device="cpu", preprocess="imagenet")

    def attribute(method: str) -> Callable[[], object]:
        return lambda: ours.attribute(x, method, target="7")

    last = module.layer4[-1]
    peer = pytorch_grad_cam.GradCAM(model=module, target_layers=[last])
    saliency = captum.attr.LayerGradCam(module, last)
    guided = captum.attr.GuidedBackprop(module)
    goal = [ClassifierOutputTarget(7)]
    return {
        "F (ONNX Runtime forward)": lambda: session.run(None, feed),
        "inspector grad-cam": attribute("grad-cam"),
        "inspector grad-cam++": attribute("grad-cam++"),
        "inspector cam": attribute("cam"),
        "inspector guided-backprop": attribute("guided-backprop"),
        "captum LayerGradCam": lambda: saliency.attribute(tensor, 7),
        "captum GuidedBackprop": lambda: guided.attribute(tensor.clone().requires_grad_(), 7),
        "pytorch-grad-cam GradCAM": lambda: peer(input_tensor=tensor, targets=goal),
    }


def cpu_seconds(arguments: list[str]) -> float:
    """CPU seconds of a command and its children."""
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - our own command
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cold(path: Path, folder: Path) -> None:
    """CPU seconds from shell to picture."""
    program = [sys.executable, "-m", "inspector"]
    photo = folder / "photo.png"
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo)
    sample = Path(__file__).parents[1] / "sample_models" / "resnet20.onnx"
    out = ["-o", str(folder / "out")]
    for label, arguments in {
        "inspector --help": ["--help"],
        "layers, ResNet-20": ["layers", str(sample)],
        "explain -m cam, ResNet-20": ["explain", str(sample), str(photo), "-m", "cam", *out],
        "explain -m cam, ResNet-50": ["explain", str(path), str(photo), "-m", "cam", *out],
        "explain -m grad-cam, ResNet-50": ["explain", str(path), str(photo), *out],
    }.items():
        spent = min(cpu_seconds([*program, *arguments]) for _ in range(3))
        print(f"{label:34} {spent:6.2f} CPU-s")


def main() -> None:
    """Print the ratios, then the cold figures."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        module, path = resnet50(folder)
        runs = contenders(module, path)
        times: dict[str, list[float]] = {label: [] for label in runs}
        for call in runs.values():
            call()  # warm
        for _ in range(ROUNDS):
            for label, call in runs.items():
                # Thread pools of the one before spin on for a while: let them come to rest, and
                # let this one's start, before the clock does.
                time.sleep(0.05)
                call()
                for _ in range(2):
                    start = time.perf_counter()
                    call()
                    times[label].append(time.perf_counter() - start)
        unit = statistics.median(next(iter(times.values())))
        print(f"{'warm, ResNet-50, batch 1':34}  median     ratio to F")
        for label, found in times.items():
            median = statistics.median(found)
            print(f"{label:34} {median * 1e3:7.1f} ms {median / unit:7.2f} F")
        cold(path, folder)


if __name__ == "__main__":
    main()
