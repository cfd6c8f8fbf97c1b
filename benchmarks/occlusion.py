"""What a position of the occluder and a channel of Ablation- and Score-CAM cost, beside the peers.

python benchmarks/occlusion.py [MODEL ...]

F is one ONNX Runtime forward pass of the untouched model.  Everything runs at one thread and is
measured in CPU-seconds, F and the peers in turn with our own runs, so that the ratios hold on a
shared machine.  The networks (resnet50 and vgg16, or others of torchvision's names) have random
weights and inputs of 224 x 224; the window is 16 pixels, the stride 8.  A position of ours is a
729th of the whole sweep, loading of the stages and comparison with whole passes included; of the
peers a few positions or channels are run, in batches as they come.  captum and pytorch-grad-cam
(``grad-cam`` on PyPI) are left out where they are not installed.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy and torch are loaded

import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WINDOW, STRIDE = 16, 8
SIDE = 224
EVERY = 8
"""Batches of positions between two measurements of F and of the peers."""

CHANNELS = 16
"""Channels that the peers' methods are measured with."""

MORE = 64
"""Channels of our Score-CAM; its passes over the photo and an empty image are counted with them."""

ROUNDS = 2
"""Runs of the methods by channel."""

TARGET = 7


def spent(call: Callable[[], object]) -> float:
    """CPU-seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def network(name: str, folder: Path) -> tuple[Any, Path]:
    """A network of torchvision's with random weights, and its ONNX file."""
    import torch

    from converters.to_onnx.pytorch.export import export_module

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from torchvision_loader import load_torchvision

    torch.manual_seed(0)
    torch.set_num_threads(1)
    module = getattr(load_torchvision().models, name)(weights=None).eval()
    path = folder / f"{name}.onnx"
    export_module(module, torch.zeros(1, 3, SIDE, SIDE), path)
    return module, path


def opened(path: Path) -> Any:
    """The model, which ONNX Runtime runs at one thread."""
    import inspector
    from inspector.engines.execution import Execution

    model = inspector.load(path, device="cpu", preprocess="imagenet")
    model.model.execution = Execution(threads=1)
    model.model.runtime.threads = 1
    return model


def captum_position(module: Any, image: np.ndarray[Any, Any]) -> Callable[[], object] | None:
    """Sixteen positions of captum's occlusion, in one batch: their size changes no pass."""
    if importlib.util.find_spec("captum") is None:
        return None
    import captum.attr
    import torch

    method, x = captum.attr.Occlusion(module), torch.from_numpy(image[None])
    how = {"sliding_window_shapes": (3, 56, 56), "strides": (3, 56, 56)}
    return lambda: method.attribute(x, target=TARGET, perturbations_per_eval=16, **how)


def sweep(name: str, module: Any, model: Any) -> None:
    """Print what a position costs."""
    from inspector.evidence.local_forward import LocalForward
    from inspector.photos.occluder import windows

    network, names = model.model, [model.model.scores.tensor]
    image = np.random.default_rng(0).standard_normal((3, SIDE, SIDE)).astype(np.float32)
    boxes = list(windows(SIDE, SIDE, WINDOW, STRIDE))
    colour = np.zeros(3, np.float32)
    feeds = {network.input.name: image[None]}

    def forward() -> object:
        return network.runtime.run(feeds, names)

    forward()
    peer = captum_position(module, image)
    found: list[LocalForward] = []
    total = loading = spent(
        lambda: found.append(LocalForward(network, image, boxes, colour, names))
    )
    (local,) = found
    units, others = [], []
    for number, batch in enumerate(local.batches(32)):
        if number % EVERY == 0:
            units.append(spent(forward))
            if peer and number % (4 * EVERY) == 0:
                others.append(spent(peer) / 17)  # the untouched image too
        some = [boxes[one] for one in batch]
        total += spent(lambda some=some: local(some, names))
    unit = statistics.median(units)
    print(f"{name}: F = {unit * 1e3:.0f} ms, {len(boxes)} positions")
    print(f"  inspector occlusion   {total / len(boxes) / unit:6.3f} F a position", end="")
    print(f" (once {loading / unit:.0f} F; largest difference {local.difference or 0:.0e})")
    if others:
        print(f"  captum Occlusion      {statistics.median(others) / unit:6.3f} F a position")


def channels(module: Any, model: Any) -> None:
    """Print what a channel costs: ours over all channels, the peers over a few."""
    image = np.random.default_rng(0).standard_normal((3, SIDE, SIDE)).astype(np.float32)
    layer, _ = model.layer_for(None)
    count = model.shape_of(layer.tensor)[1]
    model.unverified = True  # a certificate is made once per file, not per map
    peers = grad_cam_channels(module, image) if hasattr(module, "layer4") else {}
    few = f"score-cam:channels={MORE}"
    model.attribute(image[None], "ablation-cam", target=str(TARGET))
    model.attribute(image[None], "score-cam:channels=1", target=str(TARGET))
    for method, request, number in (
        ("ablation-cam", "ablation-cam", count),
        ("score-cam", few, MORE),
    ):
        ours, others = [], []
        for _ in range(ROUNDS):
            call = lambda request=request: model.attribute(image[None], request, target=str(TARGET))  # noqa: E731
            ours.append(spent(call) / number)
            if method in peers:
                others.append(spent(peers[method]) / CHANNELS)
        print(f"  inspector {method:12} {statistics.median(ours) * 1e3:9.3f} ms a channel")
        if others:
            ratio = statistics.median(others) / statistics.median(ours)
            print(
                f"  pytorch-grad-cam      {statistics.median(others) * 1e3:9.3f} ms: {ratio:.1f}x"
            )


def grad_cam_channels(module: Any, image: np.ndarray[Any, Any]) -> dict[str, Callable[[], object]]:
    """pytorch-grad-cam's weights of a few channels of the last layer, by our names."""
    if importlib.util.find_spec("pytorch_grad_cam") is None:
        return {}
    import pytorch_grad_cam
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    x, goal = torch.from_numpy(image[None]), [ClassifierOutputTarget(TARGET)]
    last = module.layer4[-1]
    kept: list[Any] = []
    hook = last.register_forward_hook(lambda *args: kept.append(args[2].detach().numpy()))
    with torch.no_grad():
        module(x)
    hook.remove()
    few = kept[0][:, :CHANNELS]
    ablation = pytorch_grad_cam.AblationCAM(model=module, target_layers=[last])
    score = pytorch_grad_cam.ScoreCAM(model=module, target_layers=[last])

    def weights(method: Any, maps: np.ndarray[Any, Any]) -> Callable[[], object]:
        return lambda: method.get_cam_weights(x, last, goal, maps, None)

    return {"ablation-cam": weights(ablation, few), "score-cam": weights(score, few)}


def main() -> None:
    """Print the figures of each network."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or ["resnet50", "vgg16"]:
            module, path = network(name, Path(folder))
            model = opened(path)
            sweep(name, module, model)
            if name == "resnet50":
                channels(module, model)


if __name__ == "__main__":
    main()
