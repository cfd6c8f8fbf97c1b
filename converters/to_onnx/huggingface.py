"""Hugging Face transformers: a folder as ``save_pretrained`` writes it.

    config.json                 architecture, sizes, class names
    model.safetensors           weights, or pytorch_model.bin, or several files with an index
    preprocessor_config.json    what to do with a photo

The architecture is a class that transformers itself ships.  Nothing in the folder is a program:
code that comes with a model (``auto_map``) is refused, and weights in a pickle are read as
weights alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import ConversionFailed, said_by
from converters.plain_values import parse_json
from converters.preprocessing import hugging_face
from converters.regular_file import read_beside
from converters.source import Export, Options, as_path, lacking
from converters.to_onnx.pytorch.weights import files_of, folder_state, listed

if TYPE_CHECKING:
    import torch

__all__ = ["EXTRA", "TITLE", "convert", "recognises"]

TITLE = "Hugging Face transformers"
EXTRA = "huggingface"

_CONFIG = "config.json"
_PREPROCESSOR = "preprocessor_config.json"
_MOST_BYTES = 2**24
_RESULTS = (
    "logits",
    "pred_boxes",
    "pred_masks",
    "predicted_depth",
    "reconstruction",
    "image_embeds",
    "last_hidden_state",
    "pooler_output",
)


def recognises(source: str) -> str | None:
    """Whether a source is a folder of transformers'; it is data. See ``converters.source``.

    Raises:
        ConversionFailed: It brings code of its own, or has no weights.
    """
    path = as_path(source)
    config = _json(path / _CONFIG) if path is not None and path.is_dir() else None
    if path is None or config is None or "architecture" in config:
        return None
    if not isinstance(config.get("model_type"), str) and "architectures" not in config:
        return None
    if "auto_map" in config:
        raise ConversionFailed(
            "brings code of its own (auto_map in config.json), which is never run",
            where=source,
            hint="import its class yourself and give it as package.module:name",
        )
    if (path / "adapter_config.json").exists():
        raise ConversionFailed(
            "is an adapter to another model", where=source, hint="merge the two and save the result"
        )
    files_of(path)
    return ""


def _json(path: Path) -> dict[str, Any] | None:
    """A small JSON object; None when there is none that can be read."""
    try:
        found = parse_json(read_beside(path.parent, path.name, _MOST_BYTES), finite=False)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def convert(source: str, draft: Path, options: Options) -> Export:
    """Write ``draft`` from a folder.

    Raises:
        ConversionFailed: transformers has no such architecture, weights are missing or another's,
            or it cannot be exported.
    """
    try:
        import onnxscript  # noqa: F401 - late: the exporter needs it
        import safetensors  # noqa: F401 - an extra
        import torch  # noqa: F401 - late: two seconds
        import transformers  # noqa: F401 - an extra, and slow

        from converters.to_onnx.pytorch import module as torch_module
    except ImportError as error:
        raise lacking(error, TITLE, EXTRA, source) from None
    folder = Path(source)
    config = _json(folder / _CONFIG) or {}
    torch_module.declare_torchvision()  # transformers imports it where it is installed
    network, notes = _load(folder, config, source)
    preprocess, said = _preprocess(folder)
    shapes = options.inputs[:1] or _shapes(config, preprocess)
    shape, results = _tried(network, shapes, source)
    if preprocess:
        preprocess["size"] = list(shape[2:])
    labels = _labels(network) if _classifies(network) or _segments(network) else ()
    return torch_module.export(
        _of_pixels(network, results),
        draft,
        (shape,),
        options,
        where=source,
        input_names=("pixel_values",),
        output_name=results,
        packages=("transformers", "safetensors"),
        labels=labels,
        preprocess=preprocess,
        notes=[*notes, *said],
    )


def _load(folder: Path, config: Mapping[str, Any], where: str) -> tuple[Any, list[str]]:
    """The network with all of its weights."""
    import torch

    if config.get("quantization_config"):
        raise ConversionFailed(
            "is quantised in a way that belongs to transformers",
            where=where,
            hint="convert the model that it was made from, and quantise the ONNX file",
        )
    kind = _class(config, where)
    given: dict[str, Any] = {"use_safetensors": True}
    place: str | None = str(folder)
    part = kind.__name__ not in (config.get("architectures") or [kind.__name__])
    if part:
        given["config"] = _settings_of_part(folder, kind, where)
    if files_of(folder)[0].suffix != ".safetensors":  # a pickle, which transformers does not open
        settings = given.get("config") or _settings(folder, where)
        place, given = None, {"state_dict": folder_state(folder), "config": settings}
    try:
        network, said = kind.from_pretrained(
            place,
            **given,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            attn_implementation="eager",
        )
    except Exception as error:  # noqa: BLE001 - frameworks raise anything
        raise ConversionFailed(
            f"transformers does not load it ({said_by(error)})", where=where
        ) from None
    missing, other = sorted(said["missing_keys"]), sorted(map(str, said["mismatched_keys"]))
    # Weights that are not there would be random numbers, which transformers only warns of.
    if missing or other:
        wrong = (("lacks", missing), ("of another shape:", other))
        parts = [f"{what} {listed(names)}" for what, names in wrong if names]
        raise ConversionFailed(
            f"the weights are not those of {kind.__name__}: " + "; ".join(parts), where=where
        )
    unused = sorted(said["unexpected_keys"])
    notes = [f"weights that are not used: {listed(unused)}"] if unused else []
    if part and "Vision" in kind.__name__:
        notes.insert(0, f"the part that sees is read: {kind.__name__}")
    return network, notes


def _settings(folder: Path, where: str) -> Any:
    """The folder's configuration as transformers holds it."""
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # noqa: BLE001 - frameworks raise anything
        raise ConversionFailed(
            f"transformers does not read its {_CONFIG} ({said_by(error)})", where=where
        ) from None


def _settings_of_part(folder: Path, kind: Any, where: str) -> Any:
    """The configuration of the part that sees; of both where it has none of its own."""
    both = _settings(folder, where)
    inner = getattr(both, "vision_config", None)
    if inner is None or not isinstance(inner, kind.config_class):
        return both
    if hasattr(both, "projection_dim"):  # of both parts, and the whole says it
        inner.projection_dim = both.projection_dim
    return inner


def _class(config: Mapping[str, Any], where: str) -> Any:
    """The class that the folder names, one of transformers' own that looks at pixels."""
    import transformers

    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else "AutoModelForImageClassification"
    kind = getattr(transformers, name, None) if isinstance(name, str) else None
    if name == "AutoModelForImageClassification":
        return kind
    shipped = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    if not shipped:
        raise ConversionFailed(
            f"transformers {transformers.__version__} has no architecture {str(name)[:80]!a}",
            where=where,
        )
    if getattr(kind, "main_input_name", "") != "pixel_values":
        part = _image_part(name)
        if part is not None:
            return part
        raise ConversionFailed(
            f"{name} takes {getattr(kind, 'main_input_name', 'text')}, not an image",
            where=where,
            hint="networks that see are converted: ...ForImageClassification and the like",
        )
    return kind


def _image_part(name: str) -> Any:
    """The class of the part of a model of images and texts (CLIP, SigLIP) that sees; or None."""
    import transformers

    stem = name.removesuffix("Model")
    for kind in (f"{stem}VisionModelWithProjection", f"{stem}VisionModel"):
        found = getattr(transformers, kind, None)
        if stem != name and getattr(found, "main_input_name", "") == "pixel_values":
            return found
    return None


def _classifies(network: Any) -> bool:
    return "ForImageClassification" in type(network).__name__


def _segments(network: Any) -> bool:
    return "ForSemanticSegmentation" in type(network).__name__


def _shapes(
    config: Mapping[str, Any], preprocess: Mapping[str, Any]
) -> tuple[tuple[int | None, ...], ...]:
    """(N, C, H, W) that the network may be made for, the likeliest first.

    What photos are brought to comes before ``image_size``, which many configurations have by
    default and networks of convolutions do not care for.
    """
    found, inner = [], config.get("vision_config")
    own = inner.get("image_size") if isinstance(inner, Mapping) else None
    for size in (preprocess.get("size"), config.get("image_size"), own, 224):
        given = [size.get("height"), size.get("width")] if isinstance(size, Mapping) else size
        pair = [given, given] if isinstance(given, int) else given
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, int) for n in pair):
            found.append((None, int(config.get("num_channels") or 3), *pair))
    return tuple(dict.fromkeys(found))


def _tried(
    network: Any,
    shapes: Sequence[tuple[int | None, ...]],
    where: str,
) -> tuple[tuple[int | None, ...], tuple[str, ...]]:
    """The first shape that the network runs on, and the names of its results that are tensors.

    Of a classifier's results only the scores are kept.
    """
    import torch

    said = ""
    for shape in shapes:
        example = torch.zeros([1 if n is None else n for n in shape])
        try:
            with torch.no_grad():
                found = network(pixel_values=example, return_dict=True)
        except Exception as error:  # noqa: BLE001 - frameworks raise anything
            tried = "x".join(map(str, example.shape))
            said = said or f"on an input of {tried} ({said_by(error)})"
            continue
        names = tuple(n for n in _RESULTS if isinstance(found.get(n), torch.Tensor))
        if not names:
            raise ConversionFailed(
                f"computes none of {', '.join(_RESULTS)}",
                where=where,
                hint="wrap it in a module of your own and give that as package.module:name",
            )
        return shape, names[:1] if _classifies(network) else names
    raise ConversionFailed(
        f"does not run {said}",
        where=where,
        hint="give the shape that it takes, batch first (--input)",
    )


def _of_pixels(network: Any, names: tuple[str, ...]) -> "torch.nn.Module":
    """The network as a function of the pixels alone, with plain tensors as results.

    It stays the module that it is, so that layers keep the names that its weights have.
    """
    full = network.forward

    def forward(pixel_values: "torch.Tensor") -> "tuple[torch.Tensor, ...]":
        found = full(pixel_values=pixel_values, return_dict=True)
        return tuple(found[name] for name in names)

    network.forward = forward
    module: torch.nn.Module = network
    return module


def _preprocess(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What to do with a photo, and notes where the folder does not say."""
    data = _json(folder / _PREPROCESSOR)
    if data is None:
        return {}, [f"there is no {_PREPROCESSOR}: how photos are prepared is not known"]
    try:
        return {**hugging_face(data), "layout": "NCHW"}, []
    except (ConversionFailed, TypeError, ValueError, LookupError, AttributeError) as error:
        return {}, [f"{_PREPROCESSOR} is not understood: {error}"]


def _labels(network: Any) -> tuple[str, ...]:
    """Class names in the order of the scores; none where they are mere numbers."""
    names = network.config.id2label
    found = tuple(str(names[index]) for index in sorted(names))
    placeholders = tuple(f"LABEL_{index}" for index in range(len(found)))
    return () if found == placeholders else found
