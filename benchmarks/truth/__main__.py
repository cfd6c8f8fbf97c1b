"""The truth table: every method on networks whose right map is known.

python benchmarks/truth [--page docs/truth.md] [--seeds N] [--ours]

Methods of this project and of captum, pytorch-grad-cam, torchcam and zennit as released, beside a
random map, an edge detector and the centre. Prints a summary, and writes the page that is named.
"""

import argparse
import contextlib
import io
import logging
import sys
import time
from pathlib import Path

import torch
from cells import exact, trained
from peer_maps import versions
from truth_page import page, summary


def main() -> None:
    """Run the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page", type=Path, help="Markdown file to write")
    parser.add_argument("--seeds", type=int, default=5, help="pictures per exact unit")
    parser.add_argument("--networks", type=int, default=2, help="per kind of tetrominoes")
    parser.add_argument("--pictures", type=int, default=4, help="per network")
    parser.add_argument("--ours", action="store_true", help="this project's methods alone")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # of the quantiser
    torch.set_num_threads(1)  # networks so small lose by more
    start = time.monotonic()
    found = {} if options.ours else versions()
    packages, errors = list(found), sys.stderr

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:5.0f} s  {text}", file=errors, flush=True)

    # Progress bars and remarks of other packages.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        units = exact(options.seeds, packages, say)
        shapes, accuracies = trained(options.networks, options.pictures, packages, say)
    minutes = time.process_time() / 60
    if options.page:
        text = page(
            units,
            shapes,
            accuracies,
            versions=found,
            minutes=minutes,
            seeds=options.seeds,
            networks=options.networks,
            pictures=options.pictures,
        )
        options.page.write_text(text, encoding="utf-8")
    print(summary(units, shapes))
    print(f"\n{minutes:.1f} minutes of processor time")


if __name__ == "__main__":
    main()
