"""The cost table: this project's methods beside other packages, in forward passes.

python benchmarks/costs [--page docs/costs.md] [--readme README.md] [--rounds N] [NETWORK ...]

F is one ONNX Runtime forward pass of the untouched model. Everything runs at one thread, package by
package and in turn with F within each round, and is measured in CPU-seconds; what is printed is the
median of the rounds as a multiple of F's, because absolute times on a shared machine say little.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy and torch start theirs

import argparse
import json
import logging
import sys
import time
from pathlib import Path

from costs_page import page, short
from ours import one_thread
from peers import versions
from table import Costs, costs_of, networks


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "networks",
        nargs="*",
        metavar="NETWORK",
        help=f"all when none is named: {', '.join(networks())}",
    )
    parser.add_argument("--page", type=Path, help="Markdown file to write")
    parser.add_argument("--readme", type=Path, help="file whose marked lines are written anew")
    parser.add_argument("--rounds", type=int, default=5, help="of everything in turn")
    parser.add_argument(
        "--results",
        type=Path,
        help="JSON file that keeps what was measured: a run goes on there",
    )
    parser.add_argument("--ours", action="store_true", help="this project's methods alone")
    options = parser.parse_args()
    if unknown := [name for name in options.networks if name not in networks()]:
        parser.error(f"no such network: {', '.join(unknown)}; there are {', '.join(networks())}")
    logging.disable(logging.WARNING)  # of the exporter
    import torch

    torch.set_num_threads(1)
    one_thread()
    start = time.monotonic()
    found = {} if options.ours else versions()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:5.0f} s  {text}", file=sys.stderr, flush=True)

    kept = options.results
    results = json.loads(kept.read_text()) if kept and kept.exists() else {}
    chosen = options.networks or list(networks())
    for name in chosen:
        if name in results:
            continue
        costs = costs_of(name, list(found), options.rounds, say)
        if costs is None:
            say(f"{name}: left out, its package is not installed")
            continue
        results[name] = costs.to_dict()
        if kept:
            kept.write_text(json.dumps(results))
    measured = [Costs.of_dict(results[name]) for name in chosen if name in results]
    minutes = sum(one.seconds for one in measured) / 60
    text = page(measured, versions=found, rounds=options.rounds, minutes=minutes)
    if options.page:
        options.page.write_text(text, encoding="utf-8")
    if options.readme:
        short(measured, options.readme)
    print(text)


if __name__ == "__main__":
    main()
