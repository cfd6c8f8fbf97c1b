"""timm: a folder as ``timm.models.save_for_hf`` writes it.

    config.json          architecture, its arguments, class names, preprocessing
    model.safetensors    weights, or pytorch_model.bin, or several files with an index

Or as transformers writes the same networks (``TimmWrapper...``, weights below ``timm_model.``).

The architecture is one that timm ships; nothing in the folder is a program.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.errors import ConversionFailed, said_by
from converters.plain_values import parse_json
from converters.preprocessing import is_timm
from converters.preprocessing import timm as timm_preprocessing
from converters.regular_file import read_beside
from converters.source import Export, Options, as_path, lacking
from converters.to_onnx.pytorch.weights import files_of, folder_state

__all__ = ["EXTRA", "TITLE", "convert", "recognises"]

TITLE = "timm"
EXTRA = "timm"

_CONFIG = "config.json"
_MOST_BYTES = 2**24
_ARCHITECTURE = re.compile(r"\w{1,100}(\.[\w\-]{1,100})?")
# Of ``timm.create_model``'s arguments, those that look for weights elsewhere.
_NOT_ARGUMENTS = frozenset(
    (
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "pretrained_strict",
        "checkpoint_path",
        "cache_dir",
        "model_name",
        "scriptable",
        "exportable",
        "no_jit",
    )
)


def recognises(source: str) -> str | None:
    """Whether a source is a folder of timm's; it is data. See ``converters.source``.

    Raises:
        ConversionFailed: It has no weights.
    """
    path = as_path(source)
    config = _config(path) if path is not None and path.is_dir() else None
    if path is None or config is None or not isinstance(config.get("architecture"), str):
        return None
    files_of(path)
    return ""


def _config(folder: Path) -> dict[str, Any] | None:
    """The folder's ``config.json``; None when there is none that can be read."""
    try:
        found = parse_json(read_beside(folder, _CONFIG, _MOST_BYTES), finite=False)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def convert(source: str, draft: Path, options: Options) -> Export:
    """Write ``draft`` from a folder.

    Raises:
        ConversionFailed: timm has no such architecture, the weights are another's, or it cannot
            be exported.
    """
    try:
        import onnxscript  # noqa: F401 - late: the exporter needs it
        import safetensors  # noqa: F401 - an extra

        from converters.to_onnx.pytorch import module as torch_module
        from converters.to_onnx.pytorch.fit import fill

        note = torch_module.declare_torchvision()
        import timm
        import timm.layers
    except ImportError as error:
        raise lacking(error, TITLE, EXTRA, source) from None
    folder = Path(source)
    config = _config(folder) or {}
    cfg = config.get("pretrained_cfg")
    cfg = dict(cfg) if isinstance(cfg, Mapping) else dict(config)
    # Attention as products, which every opset has.
    timm.layers.set_fused_attn(enable=False)
    module = _model(config, source)
    files = files_of(folder)
    said = fill(module, folder_state(folder), str(files[0]))
    preprocess, notes = _preprocess(cfg, module)
    notes += said
    if note and type(module).__module__.startswith("torchvision"):
        notes.append(note)
    shapes = options.inputs or (_shape(module, cfg),)
    return torch_module.export(
        module,
        draft,
        shapes,
        options,
        where=source,
        packages=("timm", "safetensors"),
        labels=_labels(config, cfg),
        preprocess=preprocess,
        notes=notes,
    )


def _model(config: Mapping[str, Any], where: str) -> Any:
    import timm

    name = str(config.get("architecture"))
    # A name with a scheme ("hf-hub:") would be looked for on the network.
    if not _ARCHITECTURE.fullmatch(name) or not timm.is_model(name.partition(".")[0]):
        raise ConversionFailed(
            f"timm {timm.__version__} has no architecture {name[:80]!a}",
            where=where,
            hint="pip install --upgrade timm, or give the function that makes the model: "
            "package.module:name",
        )
    given = config.get("model_args")
    arguments = dict(given) if isinstance(given, Mapping) else {}
    strange = sorted(_NOT_ARGUMENTS & set(arguments))
    if strange:
        raise ConversionFailed(
            f"config.json says where else to look for weights ({', '.join(strange)})", where=where
        )
    for key in ("num_classes", "global_pool"):
        if key in config:
            arguments.setdefault(key, config[key])
    try:
        return timm.create_model(name.partition(".")[0], pretrained=False, **arguments)
    except Exception as error:  # noqa: BLE001 - frameworks raise anything
        raise ConversionFailed(
            f"timm does not make {name} with the arguments of {_CONFIG} ({said_by(error)})",
            where=where,
        ) from None


def _preprocess(cfg: Mapping[str, Any], module: Any) -> tuple[dict[str, Any], list[str]]:
    """What to do with a photo, and notes where the file does not say."""
    notes = []
    if not is_timm(cfg):
        notes.append(f"{_CONFIG} does not say how photos are prepared")
        cfg = getattr(module, "pretrained_cfg", None) or {}
        if not is_timm(cfg):
            return {}, notes
        notes[0] += ": as timm does for networks of this name"
    try:
        return {**timm_preprocessing(cfg), "layout": "NCHW"}, notes
    except (ConversionFailed, TypeError, ValueError, LookupError) as error:
        return {}, [f"the preprocessing in {_CONFIG} is not understood: {error}"]


def _shape(module: Any, cfg: Mapping[str, Any]) -> tuple[int | None, ...]:
    """(N, C, H, W) that the network was made for."""
    size = cfg.get("input_size") or getattr(module, "pretrained_cfg", {}).get("input_size")
    if isinstance(size, list | tuple) and len(size) == 3:
        return (None, *(int(n) for n in size))
    return (None, 3, 224, 224)


def _labels(config: Mapping[str, Any], cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names: the file's own, or timm's where the number of classes is ImageNet's."""
    given = [config, cfg]
    names = next((c["label_names"] for c in given if isinstance(c.get("label_names"), list)), None)
    if names is not None:
        described: Mapping[str, Any] = {}
        for known in (c.get("label_descriptions") for c in given):
            described = described or (known if isinstance(known, Mapping) else {})
        found = tuple(str(described.get(name, name)) for name in map(str, names))
        mere = tuple(f"LABEL_{index}" for index in range(len(found)))
        return () if found == mere else found
    from timm.data import ImageNetInfo, infer_imagenet_subset

    count = config.get("num_classes") or cfg.get("num_classes")
    subset = infer_imagenet_subset({"num_classes": count}) if isinstance(count, int) else None
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else ()
