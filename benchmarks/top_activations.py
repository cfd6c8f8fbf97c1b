"""The pass of `inspector study top-activations` over many photos: throughput and memory.

python benchmarks/top_activations.py MODEL PHOTOS [COUNT]

PHOTOS is a folder; its photos are repeated under other names until there are COUNT of them
(10,000 when not given). Printed are the time of the plain ONNX Runtime forward pass for as many
images that are ready in memory, the time of the study's pass (reading, decoding and preprocessing
included), their ratio, and resident memory along the way.
"""

import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import inspector
from inspector.passes.batches import BATCH
from inspector.passes.ranking import strongest
from inspector.photos.dataset import pictures

SLICES = 10


def resident() -> float:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(model: Path, photos: Path, count: int) -> None:
    """Measure in alternation, so that whatever else the machine does meets both alike."""
    explainer = inspector.load(model)
    tensor = explainer.layer_for(None)[0].tensor
    with tempfile.TemporaryDirectory() as folder:
        links = []
        for place, photo in zip(range(count), itertools.cycle(pictures([photos])), strict=False):
            link = Path(folder) / f"{place:06d}{photo.suffix}"
            link.symlink_to(photo.resolve())
            links.append(link)
        images = [inspector.load_photo(path) for path in links[:BATCH]]
        apply = explainer.preprocessing.preprocess.apply
        batch = np.stack([apply(photo)[0] for photo in images])
        strongest(explainer, tensor, links[:BATCH], range(8), count=9, refused=[])
        plain = study = 0.0
        for part in range(SLICES):
            own = links[part * count // SLICES : (part + 1) * count // SLICES]
            started = time.perf_counter()
            for _ in range(len(own) // BATCH):
                explainer.forward(batch, [explainer.scores.tensor])
            plain += time.perf_counter() - started
            started = time.perf_counter()
            strongest(explainer, tensor, own, range(8), count=9, refused=[])
            study += time.perf_counter() - started
            print(
                f"{(part + 1) * count // SLICES:6d} photos: {resident():6.0f} MiB resident, "
                f"{plain / study:.2f} of the forward pass's throughput"
            )
    print(
        f"{model.name}, {count} photos: forward {plain:.1f} s, study {study:.1f} s, "
        f"{plain / study:.2f} of its throughput"
    )


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 10_000)
