"""Scripts of ours that build models by a framework, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path


def run_script(name, *arguments):
    """Run a script that lies beside this file, TensorFlow quiet and without a GPU."""
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, Path(__file__).with_name(name), *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
