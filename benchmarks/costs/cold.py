"""From the shell to a picture: processor time and memory of a whole process, the photo's map drawn.

python cold.py PACKAGE MODULE LAYER PHOTO OUT.png

draws one map by another package, as a script of a user would: a saved module, a photo, an overlay.
"""

import compileall
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Cold", "measured", "our_command", "peer_command"]

_ROOT = Path(__file__).parents[2]

Cold = tuple[float, float]
"""CPU-seconds, and the peak of memory in MiB."""


def measured(command: Sequence[str]) -> Cold:
    """What a command and its children take.

    Raises:
        RuntimeError: It fails.
    """
    # As an installed package: with its byte code on the disk, which the command's child process,
    # that may write into the output and the cache alone, does not leave there.
    for name in ("inspector", "converters"):
        compileall.compile_dir(_ROOT / name, quiet=2)
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(  # noqa: S603 - our own commands
        [sys.executable, "-S", "-c", _LAUNCHER, *command],
        capture_output=True,
        text=True,
        env=kept,
        check=False,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no picture"])[-1])
    seconds, kibibytes = done.stdout.split()[-2:]
    return float(seconds), int(kibibytes) / 1024


# The peak of a process counts what its parent held when it was started: a small one starts it.
_LAUNCHER = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status) and 1)
"""


def our_command(path: Path, photo: Path, out: Path, engine: str) -> list[str]:
    """Grad-CAM of one photo, everything but the picture left out."""
    how = [
        "-m",
        "grad-cam",
        "--engine",
        engine,
        "--preprocess",
        "imagenet",
        "--device",
        "cpu",
        "-q",
    ]
    return [
        *(sys.executable, "-m", "inspector", "explain", str(path), str(photo)),
        *how,
        *("--format", "png", "-o", str(out)),
    ]


def peer_command(package: str, module: Path, layer: str, photo: Path, out: Path) -> list[str]:
    """The same by another package."""
    return [sys.executable, __file__, package, str(module), layer, str(photo), str(out)]


def draw(package: str, path: str, layer: str, photo: str, out: str) -> None:
    """Write the overlay of one package's Grad-CAM."""
    import torch
    from PIL import Image

    from converters.to_onnx.pytorch.module import declare_torchvision

    declare_torchvision()
    torch.set_num_threads(1)
    module = torch.load(path, weights_only=False)  # noqa: TID251 - of this run
    last = module.get_submodule(layer)
    with Image.open(photo) as opened:
        picture = opened.convert("RGB").resize((224, 224))
    pixels = np.asarray(picture, np.float32) / 255
    mean, spread = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    x = torch.from_numpy(((pixels - mean) / spread).astype(np.float32)).permute(2, 0, 1)[None]
    _DRAWN[package](module, last, x, picture).save(out)


def _captum(module: Any, last: Any, x: Any, picture: Any) -> Any:
    from captum.attr import LayerAttribution, LayerGradCam

    target = int(module(x).argmax())
    found = LayerGradCam(module, last).attribute(x, target, relu_attributions=True)
    heat = LayerAttribution.interpolate(found, (224, 224), "bilinear")[0, 0].detach().numpy()
    return _blended(picture, heat / (heat.max() or 1))


def _grad_cam(module: Any, last: Any, x: Any, picture: Any) -> Any:
    from PIL import Image
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.image import show_cam_on_image

    heat = GradCAM(model=module, target_layers=[last])(input_tensor=x, targets=None)[0]
    return Image.fromarray(show_cam_on_image(np.asarray(picture) / 255, heat, use_rgb=True))


def _torchcam(module: Any, last: Any, x: Any, picture: Any) -> Any:
    from PIL import Image
    from torchcam.methods import GradCAM
    from torchcam.utils import overlay_mask

    with GradCAM(module, target_layer=last) as extractor:
        scores = module(x)
        heat = extractor(int(scores.argmax()), scores)[0]
    return overlay_mask(picture, Image.fromarray(heat[0].numpy(), mode="F"), alpha=0.5)


def _blended(picture: Any, heat: Any) -> Any:
    from PIL import Image

    return Image.blend(picture, Image.fromarray(np.uint8(255 * heat)).convert("RGB"), 0.5)


_DRAWN = {"captum": _captum, "pytorch-grad-cam": _grad_cam, "torchcam": _torchcam}

if __name__ == "__main__":
    draw(*sys.argv[1:])
