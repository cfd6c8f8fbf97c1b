"""What a folder of photos costs with all files written, in forward passes, beside a peer's loop.

python benchmarks/export.py MODEL.onnx PHOTOS... [--rounds 5]
python benchmarks/export.py MODEL.onnx PHOTOS... --memory 5000

F is the time of ONNX Runtime's forward passes of the untouched model over as many photos, eight at
a time.  Everything is measured in turn within each round, and the ratio of medians is printed,
because absolute times on a shared machine say little.  The peer is pytorch-grad-cam's Grad-CAM of
EfficientNet-Lite0 with its own overlay, written by OpenCV: one picture per photo, no report and no
numbers; it is left out where it is not installed.

With --memory, the photos go round until so many are done, with all files written (and removed), and
what the process holds is printed ten times.
"""

import argparse
import importlib.util
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

BATCH = 8


def contenders(model: Path, photos: list[Path], folder: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by name; the first is F."""
    import inspector
    from inspector.cli.explain import kept
    from inspector.render.drawing.display import PLAIN

    ours = inspector.load(model, device="cpu")
    runtime, name = ours.model.runtime, ours.input.name
    batch = np.zeros((BATCH, 3, *ours.size(*ours.preprocessing.preprocess.size)), np.float32)

    def forward() -> None:
        for _ in range(-(-len(photos) // BATCH)):
            runtime.run({name: batch}, [ours.scores.tensor])

    def export(*formats: str) -> Callable[[], object]:
        def run() -> None:
            named = ((photo.stem, item) for photo, item in zip(photos, each(), strict=True))
            for _ in kept(named, folder, formats, PLAIN, sheet=False):
                pass

        def each() -> Iterator[object]:
            return ours.explain_each(photos, "cam")

        return run

    found: dict[str, Callable[[], object]] = {
        "F (ONNX Runtime forward)": forward,
        "inspector cam, all files": export("png", "npz", "json"),
        "inspector cam, npz": export("npz", "json"),
    }
    if importlib.util.find_spec("pytorch_grad_cam") and importlib.util.find_spec("cv2"):
        found["pytorch-grad-cam loop, pictures"] = peer(photos, folder)
    return found


def peer(photos: list[Path], folder: Path) -> Callable[[], object]:
    """The loop that pytorch-grad-cam's documentation shows, over the same photos."""
    import cv2
    import torch
    from PIL import Image

    sys.path += [str(Path(__file__).parents[1] / name) for name in ("tests", "sample_models")]
    from torchvision_loader import load_torchvision

    load_torchvision()  # whose operators need the very torch that they were built for
    from efficientnet_lite0 import SIDE, network
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.image import show_cam_on_image

    module = network()
    last = [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    method = GradCAM(model=module, target_layers=[last])

    def run() -> None:
        for photo in photos:
            with Image.open(photo) as opened:
                pixels = np.asarray(opened.convert("RGB").resize((SIDE, SIDE)), np.float32)
            tensor = torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None]
            heat = method(input_tensor=tensor, targets=None)[0]  # the best class
            overlay = show_cam_on_image(pixels / 255, heat, use_rgb=True)
            cv2.imwrite(str(folder / f"{photo.stem}.peer.png"), overlay[:, :, ::-1])

    return run


def memory(model: Path, photos: list[Path], folder: Path, many: int) -> None:
    """Print what the process holds while so many photos are explained and their files written."""
    import inspector
    from inspector.cli.explain import kept
    from inspector.render.drawing.display import PLAIN

    ours = inspector.load(model, device="cpu")
    found = ours.explain_each(itertools.islice(itertools.cycle(photos), many), "cam")
    named = ((f"photo{number}", item) for number, item in enumerate(found))
    written = kept(named, folder, ("png", "npz", "json"), PLAIN, sheet=False)
    for number, (_, paths) in enumerate(written, start=1):
        for path in paths:
            path.unlink()
        if number % max(1, many // 10) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(
                f"{number:6} photos {pages * os.sysconf('SC_PAGE_SIZE') / 2**20:7.0f} MiB",
                flush=True,
            )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, metavar="N", help="of N photos, in place of time")
    chosen = parser.parse_args()
    wall: dict[str, list[float]] = {}
    used: dict[str, list[float]] = {}
    folder = Path(tempfile.mkdtemp())
    try:
        if chosen.memory:
            memory(chosen.model, chosen.photos, folder, chosen.memory)
            return 0
        timed = contenders(chosen.model, chosen.photos, folder)
        for number in range(chosen.rounds + 1):  # the first warms up
            for name, run in timed.items():
                begun, spent = time.perf_counter(), time.process_time()
                run()
                if number:
                    wall.setdefault(name, []).append(time.perf_counter() - begun)
                    used.setdefault(name, []).append(time.process_time() - spent)
    finally:
        shutil.rmtree(folder)
    first = next(iter(wall))
    print(f"{len(chosen.photos)} photos, median of {chosen.rounds} rounds")
    print(f"{'':34} {'wall':>8} {'of F':>6} {'CPU':>8} {'of F':>6}")
    for name, rounds in wall.items():
        seconds, cpu = statistics.median(rounds), statistics.median(used[name])
        of = seconds / statistics.median(wall[first]), cpu / statistics.median(used[first])
        print(f"{name:34} {seconds:7.2f}s {of[0]:6.1f} {cpu:7.2f}s {of[1]:6.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
