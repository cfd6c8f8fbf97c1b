"""What a command costs before and beside its work: processor seconds of whole processes.

python benchmarks/start.py [--rounds 7]

Each line is the least of its rounds, children of the process included: other programs on the
machine can only add to it.  The first round is not counted; it writes Python's bytecode, and the
demo's certificates into a cache folder of its own.  Bars: `import inspector` 0.05 s, `--help`
0.3 s, `demo` 3 s after the first.
"""

import argparse
import compileall
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).parents[1]

COMMANDS = {
    "bare interpreter": ["-c", "pass"],
    "import inspector": ["-c", "import inspector"],
    "inspector --help": ["-m", "inspector", "--help"],
    "inspector explain --help": ["-m", "inspector", "explain", "--help"],
    "inspector --version": ["-m", "inspector", "--version"],
    "inspector demo": ["-m", "inspector", "demo"],
}


def seconds_of(arguments: list[str], folder: Path) -> float:
    """Processor seconds, user's and system's, of one run of this Python."""
    # Bytecode is kept, as it is for whoever installed the package; a command's child process may
    # not write any.
    for name in ("inspector", "converters"):
        compileall.compile_dir(_ROOT / name, quiet=2)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPATH": str(_ROOT), "XDG_CACHE_HOME": str(folder)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(  # noqa: S603 - our own program
        [sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        found = [
            {name: seconds_of(words, Path(folder)) for name, words in COMMANDS.items()}
            for _ in range(rounds + 1)
        ]
    for name in COMMANDS:
        print(f"{name:26} {min(one[name] for one in found[1:]):6.3f} CPU-s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
