"""The process in which a source is converted: it alone loads the framework and the source.

    parent                                     child
    one line: what to convert            ->    module.convert(...) writes the draft
                                         <-    one line: inputs, labels, versions, or the error
    one line: a file of inputs (.npz)    ->    runs the source on them
                                         <-    one line: the file of outputs (.npz), or the error
    closes the pipe                      ->    ends

Lines are JSON, arrays travel as files without pickles.  Whatever the framework prints goes to
standard error, which the parent keeps for a crash.
"""

import contextlib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from converters.errors import ExplainedError, out_of_memory, reason_of
from converters.source import Export, Options

__all__ = ["main"]


def main() -> None:
    """Answer requests from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    export: Export | None = None
    title = ""
    for line in sys.stdin:
        request = json.loads(line)

        def convert(request: Mapping[str, Any] = request) -> dict[str, Any]:
            nonlocal export
            export = _convert(request)
            return export.to_dict()

        def run(request: Mapping[str, Any] = request) -> dict[str, Any]:
            return _run(export, request)

        if "convert" in request:
            title = _title(request)
            _answer(answers, convert, f"{title}: the conversion fails")
        else:
            _answer(answers, run, f"{title}: the source itself fails on an input")


def _answer(answers: TextIO, work: Callable[[], dict[str, Any]], step: str) -> None:
    try:
        answer: dict[str, Any] = {"done": work()}
    except ExplainedError as error:
        parts = [error.what, error.where, error.hint]
        answer = {"memory": True} if _ran_out(error) else {"refused": parts}
    except MemoryError:
        answer = {"memory": True}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - frameworks raise anything
        answer = {"failed": f"{step} ({type(error).__name__}: {reason_of(error)})"}
        with contextlib.suppress(ValueError):
            if os.environ.get("INSPECTOR_DEBUG"):
                traceback.print_exc()
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _ran_out(error: BaseException | None) -> bool:
    """Whether memory ran out somewhere behind an error."""
    while error is not None:
        if out_of_memory(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _title(request: Mapping[str, Any]) -> str:
    """What people call the framework that is asked for."""
    name = str(request["convert"])
    with contextlib.suppress(ImportError):
        return str(importlib.import_module(f"converters.to_onnx.{name}").TITLE) or name
    return name


def _convert(request: Mapping[str, Any]) -> Export:
    if request["path"]:  # a factory's module lies where the user stands
        sys.path.insert(0, request["path"])
    module = importlib.import_module(f"converters.to_onnx.{request['convert']}")
    options = Options.from_dict(request["options"])
    export: Export = module.convert(request["source"], Path(request["draft"]), options)
    return export


def _run(export: Export | None, request: Mapping[str, Any]) -> dict[str, Any]:
    if export is None:
        raise RuntimeError("nothing was converted yet")
    with np.load(request["run"], allow_pickle=False) as stored:
        inputs = [stored[name] for name in sorted(stored.files)]
    run = export.kernels if request.get("kernels") and export.kernels else export.run
    outputs = [np.asarray(array) for array in run(inputs)]
    if any(array.dtype.hasobject for array in outputs):
        raise TypeError("an output is not an array of numbers")
    named: dict[str, Any] = {f"{index:04d}": array for index, array in enumerate(outputs)}
    np.savez(request["outputs"], **named)  # NumPy 2.1 takes further arguments for arrays
    return {"outputs": len(outputs)}


if __name__ == "__main__":
    main()
