"""Turn trained weights into the ``.onnx`` files of this folder.

    python sample_models/build.py WEIGHTS_DIR [--output DIR] [NAME ...]

``WEIGHTS_DIR`` holds what ``train.py`` leaves: ``NAME.npz``, the state dict of each network, and
``zfnet_snapshots.npz``, the state dicts along ZFNet's training under keys such as
``epoch_005/0.weight``.  Each becomes one file with its labels and its preprocessing inside, checked
against the network it comes from.  The same weights give the same bytes.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from architectures import CLASSES, MEAN, NETWORKS, STD
from numpy.typing import NDArray

from converters.errors import ConverterError
from converters.to_onnx.pytorch.export import Exported, export_module

SIDE = 32
PREPROCESS = {
    "size": [SIDE, SIDE],
    "resize": "crop",
    "crop_pct": 1.0,
    "interpolation": "bicubic",
    "scale": 255.0,
    "mean": list(MEAN),
    "std": list(STD),
    "channels": "RGB",
    "layout": "NCHW",
}
SNAPSHOTS = "zfnet_snapshots"

StateDict = Mapping[str, NDArray[np.floating]]


def load(path: Path) -> dict[str, NDArray[np.floating]]:
    """All arrays of an ``.npz`` by name; nothing in it is unpickled."""
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def network(name: str, weights: StateDict) -> torch.nn.Module:
    """The network of that name with those weights (float16 becomes float32), ready to be asked."""
    module = NETWORKS[name]()
    tensors = {
        key: torch.from_numpy(np.asarray(value, np.float32) if value.dtype.kind == "f" else value)
        for key, value in weights.items()
    }
    # BatchNormalization counts its batches in an integer that a stored copy may hold as a float.
    own = module.state_dict()
    module.load_state_dict({key: tensor.to(own[key].dtype) for key, tensor in tensors.items()})
    return module.eval()


def snapshots(weights: StateDict) -> Iterator[tuple[str, StateDict]]:
    """(``epoch_005``, its state dict) for each snapshot, in order of the epochs."""
    for epoch in sorted({key.partition("/")[0] for key in weights}):
        prefix = epoch + "/"
        yield (
            epoch,
            {
                key.removeprefix(prefix): value
                for key, value in weights.items()
                if key.startswith(prefix)
            },
        )


def build(name: str, weights: StateDict, output: Path) -> Exported:
    """Convert one network.

    Args:
        name: Key of ``NETWORKS``.
        weights: Its state dict.
        output: The ``.onnx`` file to write.

    Raises:
        ConversionFailed: The file does not compute what the network computes.
    """
    example = torch.zeros(2, 3, SIDE, SIDE)
    module = network(name, weights)
    return export_module(module, example, output, labels=CLASSES, preprocess=PREPROCESS)


def jobs(folder: Path, output: Path, names: list[str]) -> Iterator[tuple[str, StateDict, Path]]:
    """(network, weights, file to write) for everything that was asked for."""
    for name in names:
        if name == SNAPSHOTS:
            for epoch, weights in snapshots(load(folder / f"{name}.npz")):
                yield "zfnet", weights, output / name / f"zfnet_{epoch}.onnx"
        else:
            yield name, load(folder / f"{name}.npz"), output / f"{name}.onnx"


def main() -> int:
    """Build what the command line asks for."""
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("weights", type=Path, metavar="WEIGHTS_DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, metavar="DIR")
    options = parser.parse_intermixed_args()
    names = options.names or [*NETWORKS, SNAPSHOTS]
    unknown = sorted(set(names) - {*NETWORKS, SNAPSHOTS})
    if unknown:
        parser.error(f"no such network: {', '.join(unknown)}")
    try:
        for name, weights, path in jobs(options.weights, options.output, names):
            path.parent.mkdir(parents=True, exist_ok=True)
            certificate = build(name, weights, path)
            print(f"{path}: differs by {certificate.worst:.1e} of the scores' peak")
    except (ConverterError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
