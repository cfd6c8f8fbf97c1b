"""Maps of other packages as released, each by the text that a user would write.

The text is run as it stands, and printed as the reproduction of what it gives: ``module``,
``layer``, ``image`` (1, C, H, W) and ``target`` are there, and it leaves ``values``.  Channels
become one map as in this project: the largest magnitude of a gradient, the sum of what is signed.
"""

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from converters.to_onnx.pytorch.module import declare_torchvision

__all__ = ["PACKAGES", "PEERS", "answer", "versions"]

PACKAGES = {
    "captum": "captum",
    "pytorch-grad-cam": "pytorch_grad_cam",
    "torchcam": "torchcam",
    "zennit": "zennit",
}
"""The module of each package."""

_DISTRIBUTIONS = {"pytorch-grad-cam": "grad-cam"}


def _captum(name: str, after: str, *, given: str = "", made: str = "module") -> str:
    return (
        f"from captum.attr import {name}\n"
        f"found = {name}({made}).attribute(image, target=target{given})\n"
        f"values = found{after}.detach().numpy()"
    )


_LARGEST, _SUM = ".abs().amax(1)", ".sum(1)"

_NOISY = (
    "from captum.attr import NoiseTunnel, Saliency\n"
    "found = NoiseTunnel(Saliency(module)).attribute(\n"
    "    image, target=target, nt_type='smoothgrad', nt_samples=50, stdevs=0.15, abs=False)\n"
    "values = found.abs().amax(1).detach().numpy()"
)


def _grad_cam(name: str) -> str:
    return (
        f"from pytorch_grad_cam import {name}\n"
        "from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget\n"
        f"with {name}(model=module, target_layers=[layer]) as cam:\n"
        "    values = cam(input_tensor=image, targets=[ClassifierOutputTarget(target)])[0]"
    )


_GUIDED = (
    "from pytorch_grad_cam import GuidedBackpropReLUModel\n"
    "guided = GuidedBackpropReLUModel(model=module, device='cpu')\n"
    "values = abs(guided(image.clone(), target_category=target)).max(2)"
)


def _torchcam(name: str) -> str:
    return (
        f"from torchcam.methods import {name}\n"
        f"with {name}(module, target_layer=layer) as extractor:\n"
        "    values = extractor(target, module(image))[0].detach().numpy()"
    )


_TORCHCAM_CAM = (
    "from torchcam.methods import CAM\n"
    "with CAM(module, target_layer=layer, fc_layer=module.head) as extractor:\n"
    "    values = extractor(target, module(image))[0].detach().numpy()"
)


def _zennit(attributor: str, composite: str, after: str) -> str:
    imported = f"from zennit.composites import {composite}\n" if composite else ""
    made = f", composite={composite}()" if composite else ""
    return (
        f"import torch\nfrom zennit.attribution import {attributor}\n{imported}"
        f"with {attributor}(module{made}) as attributor:\n"
        "    wanted = torch.eye(module(image).shape[1])[[target]]\n"
        "    _, found = attributor(image.clone().requires_grad_(), wanted)\n"
        f"values = found{after}.detach().numpy()"
    )


PEERS: dict[str, dict[str, str]] = {
    "captum": {
        "Saliency": _captum("Saliency", _LARGEST, given=", abs=False"),
        "NoiseTunnel (SmoothGrad)": _NOISY,
        "GuidedBackprop": _captum("GuidedBackprop", _LARGEST),
        "Deconvolution": _captum("Deconvolution", _LARGEST),
        "InputXGradient": _captum("InputXGradient", _SUM),
        "IntegratedGradients": _captum("IntegratedGradients", _SUM),
        "DeepLift": _captum("DeepLift", _SUM),
        "LRP": _captum("LRP", _SUM),
        "LayerGradCam": _captum(
            "LayerGradCam", "", given=", relu_attributions=True", made="module, layer"
        ),
        "GuidedGradCam": _captum("GuidedGradCam", _LARGEST, made="module, layer"),
        "Occlusion": _captum(
            "Occlusion",
            _SUM,
            given=", sliding_window_shapes=(image.shape[1], 8, 8), strides=(1, 8, 8)",
        ),
    },
    "pytorch-grad-cam": {
        "GuidedBackpropReLUModel": _GUIDED,
        **{
            name: _grad_cam(name)
            for name in (
                *("GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "XGradCAM", "EigenCAM"),
                *("AblationCAM", "ScoreCAM", "FullGrad", "ShapleyCAM"),
            )
        },
    },
    "torchcam": {
        "CAM": _TORCHCAM_CAM,
        **{
            name: _torchcam(name)
            for name in (
                "GradCAM",
                "GradCAMpp",
                "SmoothGradCAMpp",
                "LayerCAM",
                "XGradCAM",
                "ScoreCAM",
            )
        },
    },
    "zennit": {
        "Gradient": _zennit("Gradient", "", _LARGEST),
        "SmoothGrad": _zennit("SmoothGrad", "", _LARGEST),
        "IntegratedGradients": _zennit("IntegratedGradients", "", _SUM),
        "GuidedBackprop": _zennit("Gradient", "GuidedBackprop", _LARGEST),
        "DeconvNet": _zennit("Gradient", "DeconvNet", _LARGEST),
        "EpsilonPlus": _zennit("Gradient", "EpsilonPlus", _SUM),
        "EpsilonAlpha2Beta1": _zennit("Gradient", "EpsilonAlpha2Beta1", _SUM),
    },
}
"""Text per method, by package."""


def versions() -> Mapping[str, str]:
    """Installed packages and their versions."""
    declare_torchvision()
    found = {}
    for name, module in PACKAGES.items():
        if importlib.util.find_spec(module) is not None:
            distribution = _DISTRIBUTIONS.get(name, name)
            found[name] = importlib.metadata.version(distribution)
    return found


def answer(text: str, case: Any) -> tuple[Any, str]:
    """What the text of a method leaves for one case, and what it warns of or fails with.

    Args:
        text: Of `PEERS`.
        case: With ``module``, ``layer``, ``image`` and ``target``, in this order.

    Returns:
        The map (H, W), None where it fails; and the words.
    """
    module, layer, image, target = case
    names = {"module": module, "layer": layer, "image": image, "target": target}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            exec(text, names)  # noqa: S102 - our own text, which the page prints
        except Exception as error:  # noqa: BLE001 - whatever a package answers is its answer
            return None, f"{type(error).__name__}: {error}"
        finally:
            module.zero_grad()
    words = "; ".join(dict.fromkeys(str(one.message).split("\n")[0] for one in said))
    if (
        "values" not in names
    ):  # the context managers of pytorch-grad-cam keep an IndexError to themselves
        return None, "an error that the package keeps to itself"
    return np.squeeze(np.asarray(names["values"], np.float64)), words
