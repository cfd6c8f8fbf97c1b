"""Verdicts of models that were certified before, in the user's cache folder.

A verdict is found again by the model's hash and by everything else that it depends on: the
target's tensor, the recipe of the inputs, versions, and the very source of the twin.  A file that
is broken, or that this user's program did not write, counts as none; where nothing can be written,
the verdict is computed anew each time.
"""

import contextlib
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import converters.to_torch as twin_package
from converters.errors import ConverterError
from inspector.cache_folder import cache_folder, read_entry, write_entry
from inspector.engines import require_torch
from inspector.errors import InspectorError, LimitExceeded, refusing
from inspector.network.inputs.choice import feed_facts
from inspector.verify.certificate import SCHEMA, Certificate, Verdict
from inspector.versions import versions

if TYPE_CHECKING:
    from inspector.model import Model
    from inspector.photos.preprocess_choice import Preprocess

__all__ = ["keep_verdict", "kept_at", "kept_verdict", "remember", "source_files", "verdict_for"]

_RELEVANT = ("onnx-inspector", "onnx", "onnxruntime", "onnxruntime-gpu", "torch", "numpy")


def verdict_for(
    model: "Model", preprocess: "Preprocess | None" = None, tensor: str = ""
) -> Verdict:
    """Whether gradients of a model's twin may be trusted.

    Costs no forward pass when the same file was certified before, by ``explain`` or by
    ``verify``, under the same versions; else it certifies quickly, and remembers the verdict.

    Args:
        model: The opened model.
        preprocess: Makes the random input one like a photo's.
        tensor: Whose elements are explained; by default the scores, else an output's.

    Returns:
        The verdict; ``passed`` is None where it cannot be decided, and where the twin or ONNX
        Runtime cannot run the model.

    Raises:
        LimitExceeded: Memory ran out.
    """
    kept = kept_verdict(model, preprocess, tensor)
    if kept is not None:
        return kept
    require_torch()
    from inspector.verify.checks import quick

    try:
        with refusing("a check failed"):
            certificate = quick(model, preprocess=preprocess, tensor=tensor)
    except LimitExceeded:  # says nothing of the model
        raise
    except (ConverterError, InspectorError) as error:
        return Verdict(None, f"the twin cannot be certified: {error}", "now")
    remember(model, certificate, preprocess, tensor)
    return certificate.kept


def remember(
    model: "Model",
    certificate: Certificate,
    preprocess: "Preprocess | None" = None,
    tensor: str = "",
) -> Path | None:
    """Keep what a certificate says of the model; what photos showed is not kept.

    Args:
        model: The model.
        certificate: Its certificate.
        preprocess: As ``verdict_for``.
        tensor: As ``verdict_for``.

    Returns:
        Where it is kept; None where that is not possible.
    """
    place: Path | None = None
    # Under the tensor's own name too, for whoever asks for the default target by its name.
    for name in dict.fromkeys((tensor, certificate.tensor) if certificate.tensor else (tensor,)):
        place = keep_verdict(model, certificate.kept, preprocess, name) or place
    return place


def keep_verdict(
    model: "Model",
    verdict: Verdict,
    preprocess: "Preprocess | None" = None,
    tensor: str = "",
    *,
    engine: str = "",
) -> Path | None:
    """Keep one verdict; see ``remember``.

    Args:
        model: The model.
        verdict: What is kept.
        preprocess: As ``verdict_for``.
        tensor: As ``verdict_for``.
        engine: Whose gradients were judged; the twin's when empty.
    """
    key = _key(model, preprocess, tensor, engine)
    document = {
        "key": key,
        "passed": verdict.passed,
        "text": verdict.text,
        "occlusion": verdict.occlusion,
    }
    return write_entry(_name(key), document)


def kept_at(
    model: "Model",
    preprocess: "Preprocess | None" = None,
    tensor: str = "",
    *,
    engine: str = "",
) -> Path | None:
    """The file that keeps a verdict; None where there is none."""
    folder = cache_folder()
    place = None if folder is None else folder / _name(_key(model, preprocess, tensor, engine))
    return place if place is not None and place.is_file() else None


def kept_verdict(
    model: "Model",
    preprocess: "Preprocess | None" = None,
    tensor: str = "",
    *,
    engine: str = "",
) -> Verdict | None:
    """A verdict that was kept before; None where there is none.  Computes nothing."""
    if cache_folder() is None:
        return None
    key = _key(model, preprocess, tensor, engine)
    document = read_entry(_name(key))
    if not isinstance(document, dict) or document.get("key") != key:
        return None
    passed, text = document.get("passed", ""), document.get("text")
    occlusion = document.get("occlusion")
    if not (passed is None or isinstance(passed, bool)):
        return None
    if not isinstance(text, str) or not isinstance(occlusion, str):
        return None
    return Verdict(passed, text, "cached", occlusion)


def _name(key: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return f"certificate-{digest[:32]}.json"


def _key(
    model: "Model", preprocess: "Preprocess | None", tensor: str, engine: str = ""
) -> dict[str, str]:
    known = versions()
    scores = model.scores
    recipe = None if preprocess is None else preprocess.to_dict()
    return {
        "schema": str(SCHEMA),
        "model": model.file.sha256,
        "fed": json.dumps(feed_facts(model.constants), sort_keys=True),
        "device": model.device,
        "target": tensor or (scores.tensor if scores.classifier else ""),
        "recipe": json.dumps(recipe, sort_keys=True, default=str),
        "source": _source_hash(),
        **({"engine": engine} if engine else {}),
        **{name: known[name] for name in _RELEVANT if name in known},
    }


def source_files() -> tuple[Path, ...]:
    """The source that a verdict depends on: the gradient's, the certificate's, the graph's."""
    converters_folder = Path(next(iter(twin_package.__path__))).parent
    package = Path(__file__).parent.parent
    folders = [
        *(converters_folder / name for name in ("graph", "onnx_file", "to_torch")),
        *(
            package / name
            for name in ("engines", "evidence", "network", "surgery", "target", "verify")
        ),
    ]
    modules = [*converters_folder.glob("*.py"), package / "model.py"]
    return tuple(sorted([*modules, *(path for f in folders for path in f.rglob("*.py"))]))


@cache
def _source_hash() -> str:
    """Hash of the source, so that a verdict is made anew once an operator is repaired."""
    digest = hashlib.sha256()
    for path in source_files():
        with contextlib.suppress(OSError):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
