"""Does the audit find what a network cheats by?  A curve over how many photos carry the mark.

    python benchmarks/cheating.py cifar10.npz OUT_DIR [--shares 5 10 25 50 100] [--seeds 3]

Per seed one honest small network is trained; per share it goes on with photos of which that share
of five classes carries a mark each: a coloured square, letters, a border, traces of JPEG, a blur
(``sample_models/cheat.py``, ``marks.py``); the classes change with the seed.  Each network is
audited over the 400 photos of ``cifar10_sample.npz``, 40 per class, with marks on the same share of
the same classes, and nothing is said to the audit.  Per mark, one row:

    cheats     rise of the class's mean probability on unseen photos of other classes that get it
    suspected  a finding names the class and at least half of its photos carry the mark
    confirmed  the same, and its intervention proved it
    false      confirmed findings of the network that are of no mark

``OUT_DIR`` keeps networks, photos, reports and ``rows.json``; what is there already is not done
again.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "sample_models"))

from cheat import PHOTOS, cheating, honest, load  # noqa: E402
from marks import CLASS_OF, write  # noqa: E402

from inspector.audit.run import AuditOptions, audit  # noqa: E402
from inspector.opening import Opening  # noqa: E402

OPTIONS = AuditOptions(workers=1, thumbnails=False, fresh=True)
LOCAL = ("colour", "watermark")


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
            and one["rule"] == ("shared-region" if kind in LOCAL else "shared-processing")
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
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    names = (ROOT / "sample_models" / "labels.txt").read_text().split()
    photos = load(options.data, PHOTOS)
    kept = options.output / "rows.json"
    rows = json.loads(kept.read_text()) if kept.exists() else []
    for seed in range(options.seeds):
        network = None
        kinds = {kind: (index + 3 * seed) % len(names) for kind, index in CLASS_OF.items()}
        for share in options.shares:
            if any((row["seed"], row["share"]) == (seed, share / 100) for row in rows):
                continue
            network = network or honest(photos, seed)
            place = options.output / f"{seed}_{share}"
            place.mkdir(exist_ok=True)
            model = place / "model.onnx"
            row = cheating(network, photos, kinds, model, share=share / 100, seed=seed)
            marked = write(place / "photos", kinds, share / 100, seed)
            report = audit(Opening(model), place / "photos", place / "report", OPTIONS)
            row["audit"] = judged(report.contents["findings"], kinds, names, marked)
            rows.append(row)
            kept.write_text(json.dumps(rows, indent=1))
            print(json.dumps(row), flush=True)
    table(rows)
    return 0


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
