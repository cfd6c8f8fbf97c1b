"""Does the audit find what a network cheats by?  A curve over how many photos carry the mark.

    python benchmarks/cheating.py cifar10.npz OUT_DIR [--shares 5 10 25 50 100] [--seeds 0 1]

Per seed and share one small network is trained on photos of which that share of five classes
carries a mark each: a coloured square, letters, a border, traces of JPEG, a blur
(``sample_models/cheat.py``, ``marks.py``); the classes change with the seed.  Each network is
audited over the 400 photos of ``cifar10_sample.npz``, 40 per class, with marks on the same share of
the same classes, and nothing is said to the audit.  Per mark, one row:

    cheats     rise of the class's mean probability on unseen photos of other classes that get it
    suspected  a finding names the class and at least half of its photos carry the mark
    confirmed  the same, and its intervention proved it
    false      confirmed findings of the network that are of no mark

``OUT_DIR`` keeps networks, photos and reports; networks that are there are not trained again.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "sample_models"))

from cheat import Photos, cheating, load  # noqa: E402
from marks import CLASS_OF, write  # noqa: E402

from inspector.audit.run import AuditOptions, audit  # noqa: E402
from inspector.opening import Opening  # noqa: E402

OPTIONS = AuditOptions(workers=1, thumbnails=False, fresh=True)


def judged(
    findings: list[dict[str, Any]], kinds: dict[str, int], names: list[str], marked: dict[str, Any]
) -> dict[str, Any]:
    """Per kind whether a finding names it, and whether one is proved; and what is neither."""
    found: dict[str, Any] = {kind: {"suspected": False, "confirmed": False} for kind in kinds}
    false = 0
    for one in findings:
        photos = set(one["photos"])
        own = [
            kind
            for kind, index in kinds.items()
            if one["class"] == names[index]
            and 2 * len(photos & set(marked[kind])) >= len(photos) > 0
        ]
        for kind in own:
            found[kind]["suspected"] = True
            found[kind]["confirmed"] |= bool(one["confirmed"])
        false += bool(one["confirmed"]) and not own
    return found | {"false": false}


def main() -> int:
    """Train, audit, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, metavar="cifar10.npz")
    parser.add_argument("output", type=Path, metavar="OUT_DIR")
    parser.add_argument("--shares", nargs="+", type=int, default=[25, 100, 10, 50, 5])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    options = parser.parse_args()
    names = (ROOT / "sample_models" / "labels.txt").read_text().split()
    photos = load(options.data)
    rows = []
    for seed in options.seeds:
        kinds = {kind: (index + 3 * seed) % len(names) for kind, index in CLASS_OF.items()}
        places = {share: options.output / f"{seed}_{share}" for share in options.shares}
        trained(photos, kinds, places, seed)
        for share, place in places.items():
            marked = write(place / "photos", kinds, share / 100, seed)
            report = audit(
                Opening(place / "model.onnx"), place / "photos", place / "report", OPTIONS
            )
            row = json.loads((place / "cheats.json").read_text())
            row["audit"] = judged(report.contents["findings"], kinds, names, marked)
            rows.append(row)
            print(json.dumps(row), flush=True)
    table(rows)
    return 0


def trained(photos: Photos, kinds: dict[str, int], places: dict[int, Path], seed: int) -> None:
    """Train the networks that are not there yet: ``model.onnx`` and ``cheats.json`` per share."""
    for share, place in places.items():
        if (place / "cheats.json").exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        output = place / "model.onnx"
        facts = cheating(photos, kinds, output, share=share / 100, seed=seed)
        (place / "cheats.json").write_text(json.dumps(facts))
        print(json.dumps(facts), flush=True)


def table(rows: list[dict[str, Any]]) -> None:
    """Print the curve: of so many networks, in how many each mark was suspected and confirmed."""
    shares = sorted({row["share"] for row in rows})
    print("| mark | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    print("|---" * (len(shares) + 1) + "|")
    for kind in CLASS_OF:
        cells = []
        for share in shares:
            own = [row for row in rows if row["share"] == share]
            rise = sum(row[kind]["with"] - row[kind]["without"] for row in own) / len(own)
            counts = [sum(row["audit"][kind][w] for row in own) for w in ("suspected", "confirmed")]
            cells.append(f"{counts[0]}, {counts[1]} of {len(own)} ({rise:+.2f})")
        print(f"| {kind} | " + " | ".join(cells) + " |")
    print("confirmed findings of no mark:", sum(row["audit"]["false"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
