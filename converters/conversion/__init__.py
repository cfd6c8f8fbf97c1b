"""Conversion of a model of any framework to an ONNX file, with a proof that both agree.

recognise      which framework is it, and is converting it running its author's program?
sandbox        a child process converts it into a draft, and then answers for the source
onnx_file      the draft passes the preflight like any stranger's file
copy           once the child is gone, what was examined is copied out of its reach
record         source and ONNX Runtime compute the same inputs; too far apart is refused
whole file     record, labels and preprocessing go into the metadata; then the draft
takes its name, or nothing does
"""

import contextlib
import importlib
import json
import os
import pkgutil
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from converters import factory, onnx_file
from converters.address import NOT_FETCHED, is_address
from converters.conversion.content import content_hash
from converters.conversion.environment import readable
from converters.conversion.inputs import further_inputs, kind_of, perturbed, trial_inputs
from converters.conversion.limits import drift, limits, usual
from converters.conversion.record import (
    METADATA_KEY,
    OFFSET,
    ConversionRecord,
    Trial,
    constant_offset,
    judged,
    recorded,
    run_onnx,
)
from converters.conversion.sandbox import Sandbox
from converters.conversion.verdict import require_agreement
from converters.errors import ConversionFailed, NotAModel, NotTrusted, NotWritten, UnsafeModel
from converters.graph.operators import facts
from converters.nearest_path import did_you_mean
from converters.onnx_file import wire
from converters.regular_file import first_bytes, open_regular, open_to_append
from converters.source import LABELS, PREPROCESS, InputSpec, Options, as_path
from converters.work_folder import work_folder

__all__ = [
    "ConversionRecord",
    "Recognised",
    "Trial",
    "content_hash",
    "convert",
    "frameworks",
    "recognise",
    "recorded",
]

Array = NDArray[Any]
Samples = Callable[[InputSpec, Mapping[str, Any]], Array]
"""Makes real inputs (N, ...) for an input, from what the source says of its preprocessing."""

SECONDS = 1800.0
_SQUASHING = frozenset({"Sigmoid", "Softmax"})


@dataclass(frozen=True)
class Recognised:
    """A source, recognised.

    Attributes:
        framework: Name of its module in ``converters.to_onnx``.
        title: What people call it.
        program: Why converting it runs a program of its author's; empty when it is data.
        parts: The paths that it consists of.
    """

    framework: str
    title: str
    program: str
    parts: tuple[str, ...]

    def require_data(self, source: str) -> None:
        """Refuse a source whose conversion runs a program.

        Args:
            source: The source, for the message.

        Raises:
            NotTrusted: It is a program.
        """
        if self.program:
            raise NotTrusted(
                f"{self.title}: {self.program}",
                where=source,
                hint="if you trust its author, say --trust",
            )


def frameworks() -> dict[str, ModuleType]:
    """The converters by name, those that only refuse last; none imports its framework yet."""
    folder = importlib.import_module("converters.to_onnx")
    names = sorted(
        (module.name for module in pkgutil.iter_modules(folder.__path__)),
        key=lambda name: (name == "other", name),
    )
    return {name: importlib.import_module(f"{folder.__name__}.{name}") for name in names}


def recognise(source: str, framework: str = "") -> Recognised | None:
    """Framework of a source, and whether converting it runs a program.

    Args:
        source: A path, or ``package.module:name``.
        framework: Ask this converter only.

    Returns:
        None when no converter knows it.

    Raises:
        ConversionFailed: There is no such framework, or this kind of file is known and cannot be
            converted: says what to export from instead.
    """
    known = frameworks()
    if framework and framework not in known:
        raise ConversionFailed(
            f"no framework is called {framework!r}", hint="one of " + ", ".join(known)
        )
    for name, module in known.items():
        if framework not in ("", name):
            continue
        program = module.recognises(source)
        if program is not None:
            parts = module.parts(source) if hasattr(module, "parts") else (source,)
            return Recognised(name, module.TITLE, program, parts)
    return None


def convert(
    source: str,
    output: Path,
    *,
    framework: str = "",
    options: Options | None = None,
    trust: bool = False,
    labels: Sequence[str] = (),
    preprocess: Mapping[str, Any] | None = None,
    samples: Samples | None = None,
    tolerance: float | None = None,
    seconds: float | None = SECONDS,
    memory: int | None = None,
    python: str = "",
) -> ConversionRecord:
    """Bring a model of another framework to ONNX, and prove the result.

    Args:
        source: A path, or ``package.module:name`` of a function that makes the model.
        output: The ONNX file; its folder exists. ``OUTPUT.certificate.json`` comes beside it.
        framework: Name of the converter; found out when empty.
        options: What the source does not say of itself.
        trust: Whether a program in the source may run.
        labels: Class names; those of the source when there are none.
        preprocess: What to do with a photo; what the source says when None.
        samples: Makes real inputs for the comparison; without, there are random ones alone.
        tolerance: Largest difference that is accepted, relative to the outputs' peak.
        seconds: Wall clock for the conversion; None for no limit.
        memory: Bytes that the conversion may allocate; None for no limit.
        python: The Python of an environment that holds the framework, NumPy and onnx; this one
            when empty.

    Returns:
        What was converted and how well it agrees.

    Raises:
        NotTrusted: The source is a program, and ``trust`` is off.
        ConversionFailed: No converter knows it, it cannot be converted, or the file computes
            something else than the source. Nothing is left behind.
        ConversionLimit: Time or memory ran out.
        NotWritten: The place for the result is full, or cannot be written to.
    """
    found = _recognised(source, framework)
    if not trust:
        found.require_data(source)
    options = options or Options()
    _require_taken(options, found, source)
    if options.weights:
        options = replace(options, weights=_absolute(options.weights))
    output = output.absolute()  # the child works elsewhere
    content = content_hash(*found.parts, options.weights)
    with _written_at(output), contextlib.ExitStack() as stack:
        folder = stack.enter_context(work_folder(output.parent))
        draft = folder / output.name
        child = Sandbox(
            folder,
            seconds=seconds,
            memory=memory,
            where=source,
            python=python,
            reads=readable(
                (*filter(as_path, found.parts), options.weights, os.curdir if found.program else "")
            ),
        )
        with child:
            made = child.ask(
                {
                    "convert": found.framework,
                    "draft": str(draft),
                    "options": options.to_dict(),
                    "path": os.getcwd() if found.program else "",  # noqa: PTH109 - may be gone
                    "source": _absolute(source),
                }
            )
            examined = _preflight(draft, source)
            specs = [InputSpec.from_dict(spec) for spec in made["inputs"]]
            wanted = dict(made["preprocess"]) if preprocess is None else dict(preprocess)
            inputs = trial_inputs(specs)
            if samples is not None and len(specs) == 1:
                inputs["photos"] = [samples(specs[0], wanted)]
            expected = {name: _answered(child, arrays) for name, arrays in inputs.items()}
            others = {
                name: _answered(child, arrays, kernels=True)
                for name, arrays in inputs.items()
                if made.get("kernels")
            }
            if others:
                # How far the kernels part is the limit then: a few inputs would leave it to chance.
                parted = _differing(draft, {n: (inputs[n], expected[n]) for n in inputs}, source)
                for name, arrays in further_inputs(specs).items():
                    if kind_of(name) in parted:
                        expected[name] = _answered(child, arrays)
                        others[name] = _answered(child, arrays, kernels=True)
            moved = {
                name: _answered(child, changed)
                for name, arrays in inputs.items()
                if not made["quantised"] and (changed := perturbed(arrays)) is not None
            }
        # The child is gone: nothing that it still holds open is what gets the name.
        final = stack.enter_context(work_folder(output.parent)) / output.name
        _settle(draft, final, examined, source)
        got = {name: run_onnx(final, arrays, source) for name, arrays in inputs.items()}
        quantised, squashed, halves = made["quantised"], _squashed(examined), _halves(examined)
        least = usual(quantised=quantised, halves=halves)
        own = [
            judged(n, expected[n], other, least.worst, least.equal) for n, other in others.items()
        ]
        changes = [
            judged(n, expected[n], m, least.worst, squashed=squashed) for n, m in moved.items()
        ]
        own, changes = ([t for t in trials if not t.why] for trials in (own, changes))
        accepted = limits(own, changes, quantised=quantised, halves=halves, tolerance=tolerance)
        trials = tuple(
            judged(
                name,
                expected[name],
                got[name],
                accepted[kind_of(name)].worst,
                accepted[kind_of(name)].equal,
                squashed=squashed,
                outputs=tuple(examined.graph.outputs),
            )
            for name in inputs
        )
        offset = constant_offset([expected[name] for name in inputs], [*got.values()])
        if content_hash(*found.parts, options.weights) != content:
            raise ConversionFailed("the source changed while it was converted", where=source)
        record = ConversionRecord(
            path=output,
            source=Path(source).name if Path(source).exists() else source,
            source_sha256=content,
            framework=found.title,
            versions=made["versions"],
            trials=trials,
            quantised=quantised,
            preprocess=wanted,
            labels=len(labels or made["labels"]),
            notes=tuple(made["notes"]),
            kernels=tuple(own),
            offset=offset if offset > OFFSET and not tolerance else 0.0,
            drift="" if tolerance else drift(trials, own),
            changes=tuple(changes),
        )
        require_agreement(record, source)
        _finish(final, record, list(labels or made["labels"]))
    return record


def _recognised(source: str, framework: str) -> Recognised:
    """What a source is.

    Raises:
        ConversionFailed: It does not exist, is empty, or no converter knows it.
    """
    found = recognise(source, framework)
    if found is not None:
        return found
    path = as_path(source)
    if path is None and factory.named(source) is None:
        if is_address(source):
            raise ConversionFailed(NOT_FETCHED, where=source)
        hint = did_you_mean(source) or "look at the path"
        raise ConversionFailed("does not exist", where=source, hint=hint)
    if path is not None and path.is_file() and not path.stat().st_size:
        raise ConversionFailed("is empty (0 bytes)", where=source, hint="ask for the file anew")
    hint = "known are " + ", ".join(m.TITLE for m in frameworks().values() if m.TITLE)
    named = wire.foreign(first_bytes(path, wire.HEAD_BYTES)) if path and path.is_file() else None
    if named is None:
        raise ConversionFailed("is not a model that any converter knows", where=source, hint=hint)
    what, advice = named
    if "inspector convert" in advice:  # what is done here, and no converter knows it
        advice = f"{hint}, under the names that they give their files"
    raise ConversionFailed(f"is {what}", where=source, hint=advice)


def _require_taken(options: Options, found: Recognised, source: str) -> None:
    """Refuse options that would change nothing in such a source.

    Raises:
        ConversionFailed: Weights for a file that has its own, or a signature where there are none.
    """
    if options.weights and as_path(source) is not None:
        raise ConversionFailed(
            "has its own weights", where=source, hint="--weights goes with package.module:name"
        )
    if options.signature and not getattr(frameworks()[found.framework], "SIGNATURES", False):
        raise ConversionFailed(
            f"{found.title}: has no signatures to choose from",
            where=source,
            hint="leave --signature out",
        )


@contextlib.contextmanager
def _written_at(output: Path) -> Iterator[None]:
    """Turns what the system says of the place for the result into an error for people.

    Raises:
        NotWritten: The place is full, or cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise NotWritten.by(error, str(output)) from None


def _absolute(source: str) -> str:
    """A path as the child sees it from its own folder; a factory as it is."""
    path = Path(source)
    return str(path.resolve()) if path.exists() else source


def _preflight(draft: Path, source: str) -> onnx_file.OnnxFile:
    """Read the draft under the limits for strangers' files: it is as untrusted as its source."""
    if not draft.is_file():
        raise ConversionFailed("the converter wrote no file", where=source)
    file = onnx_file.read(draft)
    _ = file.sha256
    return file


def _halves(examined: onnx_file.OnnxFile) -> bool:
    """Whether a file computes in float16: takes it, or rounds values to it on the way."""
    half = onnx.TensorProto.FLOAT16
    given = (value.type.tensor_type.elem_type for value in examined.model.graph.input)
    return half in given or any(
        attribute.name == "to" and attribute.i == half
        for node in examined.model.graph.node
        if node.op_type == "Cast"
        for attribute in node.attribute
    )


def _squashed(examined: onnx_file.OnnxFile) -> frozenset[int]:
    """Places of the outputs that come out of a sigmoid or softmax."""
    found = set()
    for place, name in enumerate(examined.graph.outputs):
        node = examined.graph.producer(name)
        while node is not None and facts(node).moves:
            node = examined.graph.producer(node.inputs[0])
        if node is not None and node.op_type in _SQUASHING:
            found.add(place)
    return frozenset(found)


def _settle(draft: Path, final: Path, examined: onnx_file.OnnxFile, source: str) -> None:
    """Copy the draft to a folder that its maker never saw, and require what was examined.

    Raises:
        ConversionFailed: It changed since.
    """
    try:
        for path in (draft, *examined.external):
            with (
                open_regular(path, follow=False) as stream,
                final.with_name(path.name).open("xb") as copy,
            ):
                shutil.copyfileobj(stream, copy, 1 << 20)
        same = onnx_file.read(final).sha256 == examined.sha256
    except (FileNotFoundError, FileExistsError, UnsafeModel, NotAModel):
        same = False
    if not same:
        raise ConversionFailed("the converted file changed after it was examined", where=source)


def _answered(child: Sandbox, inputs: Sequence[Array], *, kernels: bool = False) -> list[Array]:
    """What the source, in the child, computes of inputs, by its other kernels where asked."""
    place = child.folder / "inputs.npz"
    named: dict[str, Any] = {f"{index:04d}": array for index, array in enumerate(inputs)}
    np.savez(place, **named)  # NumPy 2.1 takes further arguments for arrays
    answer = place.with_suffix(".outputs.npz")  # this side's word: the child may name any file
    child.ask({"run": str(place), "outputs": str(answer), "kernels": kernels})
    try:
        with (
            open_regular(answer, follow=False) as file,
            np.load(file, allow_pickle=False) as stored,
        ):
            return [stored[key] for key in sorted(stored.files)]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConversionFailed(
            f"the source's answer cannot be read ({reason})", where=child.where
        ) from None


def _differing(
    draft: Path, known: Mapping[str, tuple[Sequence[Array], Sequence[Array]]], source: str
) -> frozenset[str]:
    """Kinds of inputs on which a quantised source and its file differ by more than is usual.

    Args:
        draft: The file, which the source's process may still change: nothing is judged by this.
        known: Inputs of each trial, and what the source computes of them.
        source: For messages.
    """
    most = usual(quantised=True)
    trials = [
        judged(name, expected, run_onnx(draft, arrays, source), most.worst, most.equal)
        for name, (arrays, expected) in known.items()
    ]
    return frozenset(trial.kind for trial in trials if not trial.worst <= most.worst)


def _finish(draft: Path, record: ConversionRecord, labels: Sequence[str]) -> None:
    """Write what is known into the file's metadata, and give it its name."""
    document = record.to_dict()
    entries = {METADATA_KEY: json.dumps(document, sort_keys=True)}
    if labels:
        entries[LABELS] = json.dumps(list(labels), ensure_ascii=False)
    if record.preprocess:
        entries[PREPROCESS] = json.dumps(dict(record.preprocess))
    # Metadata is appended to the serialised message: fields of protobuf may come in any order.
    extra = onnx.ModelProto()
    for key, value in sorted(entries.items()):
        extra.metadata_props.add(key=key, value=value)
    with open_to_append(draft) as file:
        file.write(extra.SerializeToString())
        file.flush()
        os.fsync(file.fileno())
    output = record.path
    beside = draft.with_name(draft.name + ".certificate.json")
    beside.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    data = draft.with_name(draft.name + ".data")
    for made in (data, beside, draft):  # the model comes last: it is there whole or not at all
        if made.exists():
            made.replace(output.with_name(made.name))
