"""ONNX Runtime on the file itself: one session a model, any tensor as an output.

The session is made for the tensors first asked for; asking for others widens it.  Everything
that ONNX Runtime says goes into exceptions and warnings of this package, never to the terminal.
"""

import ctypes
import math
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from converters.errors import out_of_memory
from converters.graph import Graph
from converters.graph.weights import Weights
from converters.onnx_file import OnnxFile
from converters.onnx_file.unread import names_read
from converters.plain_values import whole_number
from inspector.errors import (
    BrokenInstallation,
    InspectorWarning,
    LimitExceeded,
    ModelRefused,
    UsageError,
)
from inspector.surgery.expose import exposed
from inspector.surgery.integer_products import exact_products

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "DEVICES",
    "Runtime",
    "available_providers",
    "provider_works",
    "threads_asked_for",
    "usual_threads",
    "working_providers",
]

DEVICES = ("auto", "cpu", "cuda")

Arrays = dict[str, np.ndarray[Any, Any]]

_CUDA = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
"""Providers that need NVIDIA's driver."""

_MOST_THREADS = 1024
"""Threads that ``OMP_NUM_THREADS`` is taken at its word for."""

_REPLACEABLE = 4
"""Version of the file format from which stored tensors among a graph's inputs are defaults."""

_MOST_UNFOLDED = 1 << 24
"""Elements of constants that the graph makes, up to which ONNX Runtime may fold them."""


class Runtime:
    """Forward passes of one model.

    Args:
        file: The opened model.
        device: ``auto`` takes a CUDA device if one really works, ``cuda`` warns when none does.
        threads: Threads within an operator; 0 for ``usual_threads``.
        optimise: Whether ONNX Runtime may fuse operators.  Off, every tensor is computed as the
            graph spells it out: the reference of a parity check.
        once: It will run once: memory is taken as it is needed and given back, not kept for the
            next run.
        sealed: Nothing but the model's own outputs will be asked for: once it is loaded, the
            protobuf is let go of, which of a large model is as much memory again.
        provider: ONNX Runtime's name of the execution provider, in the place of the device's;
            what it cannot run falls to the processor.
    """

    def __init__(
        self,
        file: OnnxFile,
        *,
        device: str = "auto",
        threads: int = 0,
        optimise: bool = True,
        once: bool = False,
        sealed: bool = False,
        provider: str = "",
    ) -> None:
        if device not in DEVICES:
            raise UsageError(f"no such device: {device!r}", hint="one of " + ", ".join(DEVICES))
        self.file, self.threads, self.optimise = file, threads, optimise
        self._once, self._sealed = once, sealed
        self._asked = provider
        self._device = device
        self._session: onnxruntime.InferenceSession | None = None
        self._exposed: frozenset[str] = frozenset()
        self._kinds: dict[str, Any] = {}
        self.batches = True
        """Whether several images can go through at once, as far as runs have shown."""
        self.parts: dict[Any, Any] = {}
        """Parts of the model that run on their own, kept by those who cut them."""

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]], fetch: Sequence[str]) -> Arrays:
        """Compute tensors of the model.

        Args:
            feeds: Graph inputs by name; cast to the type that the graph declares.
            fetch: Names of any tensors of the graph.

        Returns:
            The tensors by name, float16 and bfloat16 widened to float32.

        Raises:
            ModelRefused: ONNX Runtime will not load or run the model.
            LimitExceeded: it ran out of memory.
        """
        session = self._session_for(fetch)
        kinds = self._kinds
        typed = {
            name: np.ascontiguousarray(value, dtype=kinds[name] or value.dtype)
            for name, value in feeds.items()
            if name in kinds
        }
        computed = [name for name in dict.fromkeys(fetch) if name not in typed]
        try:
            results = session.run(computed, typed) if computed else []
        except Exception as error:
            raise self._refusal(error, "ran") from error
        found = dict(zip(computed, results, strict=True))
        return {name: _widen(found[name] if name in found else typed[name]) for name in fetch}

    def prepare(self, fetch: Sequence[str]) -> None:
        """Load the model for tensors that are asked for later, by several threads perhaps.

        Raises:
            ModelRefused: ONNX Runtime will not load the model.
            LimitExceeded: it ran out of memory.
        """
        self._session_for(fetch)

    @property
    def provider(self) -> str:
        """The execution provider that really runs, as ONNX Runtime names it."""
        possible = self._providers(_onnxruntime())
        if len(possible) == 1:
            return possible[0]  # no session could run elsewhere
        providers: list[str] = self._session_for(()).get_providers()
        return providers[0]

    def _session_for(self, fetch: Sequence[str]) -> "onnxruntime.InferenceSession":
        """The kept session, made anew when it lacks a tensor."""
        if self._sealed and self._session is not None:
            return self._session
        wanted = frozenset(fetch) - set(self.file.graph.outputs) - set(self.file.graph.inputs)
        if self._session is None or not wanted <= self._exposed:
            self._exposed |= wanted
            self._session = None  # two of a large model at once would double what it takes
            self._session = self._load()
            if self._sealed:
                self.file = replace(self.file, model=onnx.ModelProto())
        return self._session

    def _load(self) -> "onnxruntime.InferenceSession":
        onnxruntime = _onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = self.threads or usual_threads()
        left = _not_folded(self.file.graph)
        options.enable_cpu_mem_arena = not (self._once or left)
        # Idle threads that spin on would take the cores from the twin's part of the work.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if not self.optimise:
            # A reference runs beside the twin, many times: threads that wait must sleep.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        contents = self.file.external_contents()
        if contents is not None:
            options.add_external_initializers_from_files_in_memory(
                list(contents), list(contents.values()), list(map(len, contents.values()))
            )
        if self.file.external:  # tensors of bodies are always looked for there
            key = "session.model_external_initializers_file_folder_path"
            options.add_session_config_entry(key, str(self.file.folder))
        if self._once:
            # Weights in an order of their own pay off from the second run on.
            options.add_session_config_entry("session.disable_prepacking", "1")
        with (
            exact_products(self.file.graph),
            exposed(self.file.model, sorted(self._exposed)) as serialised,
        ):
            providers = self._providers(onnxruntime)
            apart = self._weights(onnxruntime, contents or {})
            if apart:
                options.add_external_initializers(list(apart), list(apart.values()))
            try:
                session = onnxruntime.InferenceSession(
                    serialised,
                    options,
                    providers=providers,
                    disabled_optimizers=left,
                    # Without another provider a second try prints, and fails as the first did.
                    enable_fallback=len(providers) > 1,
                )
            except Exception as error:
                raise self._refusal(error, "loaded") from error
        if len(providers) == 1:
            # It keeps what it was made of, for a second try that is switched off here.
            session._model_bytes = None  # noqa: SLF001 - no other door to it
        self.file.require_unchanged()
        self._kinds = {value.name: _NUMPY_TYPES.get(value.type) for value in session.get_inputs()}
        self._say_provider(session)
        return session

    def _weights(self, onnxruntime: Any, contents: Mapping[str, bytes]) -> dict[str, Any]:
        """Values that the model refers to, as ONNX Runtime takes them at the least cost."""
        graph, make = self.file.model.graph, onnxruntime.OrtValue.ortvalue_from_numpy
        found = Weights(contents).of(graph)
        if self.file.weights is not None:
            found |= self.file.weights.of(graph)
        if not found:
            return {}
        # It forgets what nothing reads, and refuses values of that.
        kept = names_read(graph)
        if self.file.model.ir_version >= _REPLACEABLE:
            # Those among the inputs may be replaced by whoever runs the model: it keeps them all.
            kept.update(value.name for value in graph.input)
        return {name: make(array) for name, array in found.items() if name in kept}

    def _providers(self, onnxruntime: Any) -> list[str]:
        cpu = ["CPUExecutionProvider"]
        if self._asked:
            if self._asked in _CUDA and "torch" not in sys.modules:
                onnxruntime.preload_dlls()
            return list(dict.fromkeys([self._asked, *cpu]))
        if self._device == "cpu" or "CUDAExecutionProvider" not in (
            onnxruntime.get_available_providers()
        ):
            return cpu
        if not _cuda_driver():  # asking anyway makes ONNX Runtime print and fall back
            return cpu
        if "torch" not in sys.modules:
            onnxruntime.preload_dlls()  # CUDA and cuDNN from wherever pip put them
        return ["CUDAExecutionProvider", *cpu]

    def _say_provider(self, session: "onnxruntime.InferenceSession") -> None:
        real = session.get_providers()[0]
        if self._asked and real != self._asked:
            warnings.warn(
                f"{self._asked} was asked for, but {real} runs", InspectorWarning, stacklevel=2
            )
        elif not self._asked and self._device == "cuda" and real != "CUDAExecutionProvider":
            warnings.warn(
                f"CUDA was asked for, but {real} runs: no working CUDA device or libraries",
                InspectorWarning,
                stacklevel=2,
            )

    def _refusal(self, error: Exception, verb: str) -> Exception:
        text = " ".join(str(error).split())
        where = self.file.path.name
        if out_of_memory(error):
            return LimitExceeded(
                f"out of memory while the model {verb}",
                where=where,
                hint="give it more memory or a smaller input",
            )
        reason = text.partition(" : ")[2] or text
        return ModelRefused(
            f"ONNX Runtime refused the model as it {verb}: {reason[:400]}", where=where
        )


def _not_folded(graph: Graph) -> list[str]:
    """What the optimiser must leave: folding large constants would hold them three times over.

    A few bytes of file (``ConstantOfShape``) may stand for hundreds of megabytes of weights: they
    are made when they are read, and given back.
    """
    unfolded = 0
    for node in graph.nodes:
        shape = graph.constant(node.inputs[0]) if node.is_op("ConstantOfShape") else None
        if shape is not None and shape.dtype.kind in "iu":
            unfolded += math.prod(max(0, int(length)) for length in shape.ravel())
    return ["ConstantFolding"] if unfolded > _MOST_UNFOLDED else []


def _onnxruntime() -> Any:
    """ONNX Runtime, silent.

    Raises:
        BrokenInstallation: It does not start. Uninstalling one of two distributions leaves a
            folder without files, which can still be imported.
    """
    try:
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
    except (ImportError, AttributeError) as error:
        said = " ".join(str(error).split())[:200]
        raise BrokenInstallation(
            f"ONNX Runtime does not start ({type(error).__name__}: {said})",
            hint="`inspector doctor` says what is wrong and how to fix it",
        ) from None
    return onnxruntime


def threads_asked_for() -> int:
    """Number of threads that ``OMP_NUM_THREADS`` asks for; 0 where it asks for none.

    torch and NumPy obey it. ONNX Runtime does not know it, and takes all cores: two processes
    beside each other then wait for one another, at twice the processor time.

    Example:
        >>> from inspector.engines.runtime import threads_asked_for
        >>> threads_asked_for() >= 0
        True
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return max(0, min(whole_number(first) or 0, _MOST_THREADS))


def usual_threads() -> int:
    """Number of threads where nobody names one; 0 for ONNX Runtime's choice, one per core.

    It is what ``OMP_NUM_THREADS`` asks for, or else the cores that this process is bound to, where
    they are fewer than the machine has.  ONNX Runtime counts those of the machine: its threads then
    spin while they wait for each other on the same core, which doubles the processor time.

    Example:
        >>> from inspector.engines.runtime import usual_threads
        >>> usual_threads() >= 0
        True
    """
    asked = threads_asked_for()
    if asked or not hasattr(os, "sched_getaffinity"):
        return asked
    bound = len(os.sched_getaffinity(0))
    return bound if bound < (os.cpu_count() or 1) else 0


def available_providers() -> list[str]:
    """Execution providers that this build of ONNX Runtime has, as it names them.

    Raises:
        BrokenInstallation: ONNX Runtime does not start.
    """
    found: list[str] = _onnxruntime().get_available_providers()
    return found


def provider_works(provider: str) -> bool:
    """Whether an execution provider runs a model here.

    Args:
        provider: One of ``available_providers``.
    """
    onnxruntime = _onnxruntime()
    if provider in _CUDA and not _cuda_driver():
        return False  # asking would only make it print
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "probe", [value], [result])
    opsets = [onnx.helper.make_opsetid("", 13)]
    probe = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    session = onnxruntime.InferenceSession(probe, providers=[provider])
    found: bool = session.get_providers()[0] == provider
    return found


def working_providers() -> dict[str, bool]:
    """Providers that ONNX Runtime was built with, and whether each runs a model here."""
    return {provider: provider_works(provider) for provider in available_providers()}


_NUMPY_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(uint16)": np.uint16,
    "tensor(int16)": np.int16,
    "tensor(uint32)": np.uint32,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}


def _widen(value: Any) -> Any:
    if getattr(value, "dtype", None) == np.float16:
        return value.astype(np.float32)
    return value


def _cuda_driver() -> bool:
    """Whether the machine has an NVIDIA driver at all."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
