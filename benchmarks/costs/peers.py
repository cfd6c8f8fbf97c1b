"""Rows of other packages as released: what their documentation has a user write.

Each runs the PyTorch module at one thread, on the same image and the same class.
"""

import copy
import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from cost_networks import SIDE, Network
from runs import CHANNELS, MASKS, TARGET, Prepare, Run, counted

__all__ = ["PACKAGES", "rows", "versions"]

Array = np.ndarray[Any, Any]

PACKAGES = {
    "captum": ("captum", "captum"),
    "pytorch-grad-cam": ("pytorch_grad_cam", "grad-cam"),
    "torchcam": ("torchcam", "torchcam"),
    "dianna": ("dianna", "dianna"),
}
"""Per column the module, and the distribution that brings it."""

PATCH = 112
"""Side of the squares that captum's occlusion covers here: their size changes no pass."""

FEW = CHANNELS // 2
"""Channels per call: each is a forward pass by itself."""


def versions() -> dict[str, str]:
    """Versions of the packages that are installed, by column."""
    return {
        name: importlib.metadata.version(distribution)
        for name, (module, distribution) in PACKAGES.items()
        if importlib.util.find_spec(module)
    }


def rows(
    package: str, network: Network, image: Array, runner: Callable[[Array], Array]
) -> dict[str, Prepare]:
    """What prepares each row's run, by the row's key; nothing where there is no PyTorch module.

    Args:
        package: The column.
        network: What is explained.
        image: (1, C, H, W), the input.
        runner: The file in ONNX Runtime, for packages that ask for a function.
    """
    if network.module is None:
        return {}
    if package == "dianna":
        return {"rise": lambda: _dianna(image, runner)}
    return {"captum": _captum, "pytorch-grad-cam": _grad_cam, "torchcam": _torchcam}[package](
        network, image
    )


def _captum(network: Network, image: Array) -> dict[str, Prepare]:
    import captum.attr
    import torch

    module, x = network.module, torch.from_numpy(image)

    def plain(method: Any) -> Prepare:
        return lambda: counted(lambda: method.attribute(x.clone().requires_grad_(), target=TARGET))

    def occlusion() -> Run:
        method = captum.attr.Occlusion(module)
        how = {"sliding_window_shapes": (3, PATCH, PATCH), "strides": (3, PATCH, PATCH)}
        positions = (SIDE // PATCH) ** 2
        return counted(
            lambda: method.attribute(x, target=TARGET, perturbations_per_eval=positions, **how),
            positions + 1,  # the image without a square too
        )

    found = {
        "guided-backprop": plain(captum.attr.GuidedBackprop(module)),
        "deconvnet": plain(captum.attr.Deconvolution(module)),
        "occlusion": occlusion,
    }
    if not network.tokens:  # of which its Grad-CAM makes no map
        found["grad-cam"] = plain(captum.attr.LayerGradCam(module, network.last))
    return found


def _grad_cam(network: Network, image: Array) -> dict[str, Prepare]:
    import pytorch_grad_cam
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    module, x, goal = network.module, torch.from_numpy(image), [ClassifierOutputTarget(TARGET)]
    how = {"model": module, "target_layers": [network.last]}
    if network.tokens:
        how["reshape_transform"] = _grid

    def grad_cam() -> Run:
        method = pytorch_grad_cam.GradCAM(**how)
        return counted(lambda: method(input_tensor=x, targets=goal))

    def guided() -> Run:
        # It leaves one ReLU in the place of all, and then no layer is found by identity.
        own = copy.deepcopy(module)
        method = pytorch_grad_cam.GuidedBackpropReLUModel(model=own, device="cpu")
        return counted(lambda: method(x.clone(), target_category=TARGET))

    def weights(name: str) -> Prepare:
        def prepare() -> Run:
            method, few = getattr(pytorch_grad_cam, name)(**how), _maps(network, x)[:, :FEW]
            if name == "AblationCAM":  # whose default layer is one for all networks
                method.ablation_layer = pytorch_grad_cam.ablation_layer.AblationLayer()
            return counted(lambda: method.get_cam_weights(x, network.last, goal, few, None), FEW)

        return prepare

    found = {
        "grad-cam": grad_cam,
        "guided-backprop": guided,
        "score-cam": weights("ScoreCAM"),
    }
    if not network.tokens:  # whose channels its Ablation-CAM takes for the first axis
        found["ablation-cam"] = weights("AblationCAM")
    return found


def _torchcam(network: Network, image: Array) -> dict[str, Prepare]:
    import torch
    from torchcam import methods

    module, x = network.module, torch.from_numpy(image)
    how = {"target_layer": network.last}
    if network.tokens:
        how["reshape_transform"] = _grid

    def grad_cam() -> Run:
        def call() -> object:
            with methods.GradCAM(module, **how) as extractor:
                return extractor(TARGET, module(x))

        return counted(call)

    def score_cam() -> Run:
        def call() -> object:
            with methods.ScoreCAM(module, **how) as extractor, torch.inference_mode():
                module(x)
                extractor.hook_a[0] = extractor.hook_a[0][:, :FEW]
                return extractor(TARGET)

        return counted(call, FEW + 1)

    return {"grad-cam": grad_cam, "score-cam": score_cam}


def _dianna(image: Array, runner: Callable[[Array], Array]) -> Run:
    import dianna

    how = {"method": "RISE", "labels": [TARGET], "n_masks": MASKS, "p_keep": 0.5}
    axes = {0: "channels"}

    def run(images: Any) -> Array:
        return runner(np.asarray(images, np.float32))

    return counted(lambda: dianna.explain_image(run, image[0], axis_labels=axes, **how), MASKS)


def _maps(network: Network, x: Any) -> Array:
    """Activation (1, C, h, w) of the last layer."""
    import torch

    kept: list[Any] = []
    hook = network.last.register_forward_hook(lambda *args: kept.append(args[2]))
    with torch.no_grad():
        network.module(x)
    hook.remove()
    found = _grid(kept[0]) if network.tokens else kept[0]
    return np.asarray(found)


def _grid(tokens: Any) -> Any:
    """Tokens (N, 1 + h w, C), the class's first, as maps (N, C, h, w)."""
    side = int((tokens.shape[1] - 1) ** 0.5)
    return tokens[:, 1:].reshape(len(tokens), side, side, -1).permute(0, 3, 1, 2)
