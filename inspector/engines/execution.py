"""How a file is run: ONNX Runtime's execution provider, its threads, its optimisations, float16.

``cpu``, ``cuda``, ``openvino`` or ONNX Runtime's own name (``OpenVINOExecutionProvider``), and
behind it, joined by ``+``: ``plain`` (every node as the graph spells it out), ``threads=N``,
``float16`` (the file converted).
"""

from dataclasses import dataclass

from converters.plain_values import quoted, whole_number
from inspector.errors import UsageError, nearest

__all__ = ["PROVIDERS", "USUAL", "Execution", "parse_executions"]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""ONNX Runtime's execution providers by their short names."""

_PACKAGES = {
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu and TensorRT",
    "openvino": "onnxruntime-openvino",
    "directml": "onnxruntime-directml",
    "migraphx": "onnxruntime-migraphx",
    "qnn": "onnxruntime-qnn",
}
"""Packages that bring a provider, each in the place of ``onnxruntime``."""

_MOST_THREADS = 1024
_FORM = (
    "write PROVIDER, PROVIDER+plain, PROVIDER+threads=N or PROVIDER+float16, as in cpu,cpu+plain"
)


@dataclass(frozen=True)
class Execution:
    """One way to run a file.

    Attributes:
        text: As the user wrote it; empty for the usual way.
        provider: ONNX Runtime's name of the execution provider; empty to leave it to the device.
        threads: Threads within an operator; 0 for the usual number; see ``Runtime``.
        optimise: Whether ONNX Runtime may fuse operators.
        half: Whether the file is converted to float16 first.
    """

    text: str = ""
    provider: str = ""
    threads: int = 0
    optimise: bool = True
    half: bool = False

    @classmethod
    def parse(cls, text: str) -> "Execution":
        """Read one way to run a file.

        Raises:
            UsageError: There is no such provider or setting.

        Example:
            >>> from inspector.engines.execution import Execution
            >>> found = Execution.parse("cpu+threads=2+plain")
            >>> found.provider, found.threads, found.optimise
            ('CPUExecutionProvider', 2, False)
        """
        name, *settings = (part.strip() for part in text.split("+"))
        found = cls(text=text.strip(), provider=_provider(name))
        threads, optimise, half = 0, True, False
        for setting in settings:
            key, _, value = setting.partition("=")
            if setting == "plain":
                optimise = False
            elif setting == "float16":
                half = True
            elif key == "threads":
                number = whole_number(value)
                if number is None or not 1 <= number <= _MOST_THREADS:
                    raise UsageError(f"{quoted(value)} threads", where=quoted(text), hint=_FORM)
                threads = number
            else:
                raise UsageError(f"no setting {quoted(setting)}", where=quoted(text), hint=_FORM)
        return cls(found.text, found.provider, threads, optimise, half)

    def require(self) -> None:
        """Refuse a provider that this installation lacks, or that runs nothing here.

        Raises:
            UsageError: With what is installed, and what brings the provider.
            BrokenInstallation: ONNX Runtime does not start.
        """
        from inspector.engines.runtime import available_providers, provider_works

        installed = available_providers()
        short = next((key for key, name in PROVIDERS.items() if name == self.provider), "")
        if self.provider not in installed:
            package = _PACKAGES.get(short, f"a build of ONNX Runtime with {self.provider}")
            raise UsageError(
                f"this installation has no {self.provider}; it has {', '.join(installed)}",
                where=f"--on {self.text}",
                hint=f"install {package} in the place of onnxruntime (one of them at a time)",
            )
        if not provider_works(self.provider):
            raise UsageError(
                f"{self.provider} is installed but runs nothing here: its device or its libraries "
                "are missing",
                where=f"--on {self.text}",
                hint="`inspector doctor` says what works",
            )


USUAL = Execution()
"""As the device says, optimised."""


def parse_executions(text: str) -> tuple[Execution, ...]:
    """Several ways to run one file, the reference first.

    Args:
        text: Separated by commas, as in ``cpu,cuda``.

    Raises:
        UsageError: There are fewer than two, one twice, or one that cannot be read.
    """
    found = tuple(Execution.parse(part) for part in text.split(",") if part.strip())
    settings = [(one.provider, one.threads, one.optimise, one.half) for one in found]
    if len(found) < 2 or len(set(settings)) < len(found):
        raise UsageError(
            "names fewer than two different ways to run the model",
            where=f"--on {quoted(text)}",
            hint=_FORM,
        )
    return found


def _provider(name: str) -> str:
    known = {full.casefold(): full for full in PROVIDERS.values()}
    found = PROVIDERS.get(name.casefold()) or known.get(name.casefold())
    if found is None and name.endswith("ExecutionProvider") and name.isidentifier():
        return name  # of a build that this list does not know
    if found is None:
        near = nearest(name, PROVIDERS)
        listed = "one of " + ", ".join(PROVIDERS) + ", or ONNX Runtime's own name"
        raise UsageError(f"no execution provider {quoted(name)}", hint=near or listed)
    return found
