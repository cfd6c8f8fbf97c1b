"""The first layer's filters: what they look like, which are dead, what the stride aliases."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector import spectrum
from inspector.errors import ImageRefused, MethodRefused, ModelRefused, UsageError
from inspector.journal import Journal
from inspector.study import Findings, Progress, batches, study

if TYPE_CHECKING:
    from converters.graph import Node
    from inspector.explain import Explainer

__all__ = ["FilterNumbers", "filters", "measure"]

Array = np.ndarray[Any, Any]

NEGLIGIBLE = 0.01
"""A filter is dead if its RMS is at most this share of the largest one's."""

CLIPPED_RMS = 0.1
"""The paper scales larger filters down to this RMS (section 3)."""

MUCH, SOME = 0.5, 0.1
"""Shares of the filters' energy above the outputs' Nyquist frequency that are called so."""

FEW_MID, SOME_ENDS = 1 / 3, 0.1
"""Mid frequencies are called missing if the filters that are strongest there are fewer than the
first share, while both low and high have at least the second, and no fewer than mid has."""

_FLOATING = ("Conv", "FusedConv")


@study("filters", images=False)
def filters(
    model: "Explainer",
    images: Iterable[Any] = (),
    *,
    layer: str | int | None = None,
    progress: Progress | None = None,
    journal: Journal | None = None,
) -> Findings:
    """First-layer filters: pictures, dead filters, frequency bands, aliasing.

    Shows every filter of the convolution that reads the image, and says in plain language what
    Zeiler & Fergus (2014, figure 6) looked for in theirs: dead filters, filters that dominate,
    missing mid frequencies, aliasing from a large stride. With photos, also how often each
    filter is active on them.

    Args:
        model: The opened model.
        images: Photos over which activity is counted; none are needed.
        layer: A layer whose convolution reads the image, as tensor name or index; the first such
            convolution when not given.
        progress: Called with (what, done, total) after each photo.
        journal: Not used: one pass over the photos is all there is.

    Returns:
        The figure, the numbers of each filter and of all, and the diagnosis.

    Raises:
        ModelRefused: no convolution reads the image.
        UsageError: the layer's filters act on features, not on pixels.
        MethodRefused: weights whose scale is not known.
        ImageRefused: photos were given, and none can be read.
    """
    del journal
    node = _node(model, layer)
    weights = _weights(model, node)
    warnings = list(model.preprocessing.warnings)
    refused: list[ImageRefused] = []
    peaks, shares, used = _activity(
        model, node, len(weights), images, refused=refused, progress=progress
    )
    found = measure(
        weights,
        strides=node.attributes.get("strides") or [1, 1],
        dilations=node.attributes.get("dilations") or [1, 1],
        peaks=peaks,
        active=shares,
    )
    if found.strides == (1, 1):
        warnings.append("aliasing is that of this convolution's stride: a pooling or stride "
                        "behind it is not counted")  # fmt: skip
    if weights.shape[1] not in (1, 3):
        warnings.append(f"the filters have {weights.shape[1]} channels: pictures show their sum")
    sentences = found.sentences(used)
    return Findings(
        study="filters",
        context=model.context(None),
        options={"layer": layer},
        numbers={"convolution": node.outputs[0], **found.to_dict()},
        sentences=sentences,
        figure=_figure(model, node, weights, found, sentences=sentences, warnings=warnings),
        images=used,
        refused=tuple(refused),
        warnings=tuple(warnings),
    )


# -- the convolution ------------------------------------------------------------------------------


def _node(model: "Explainer", layer: str | int | None) -> "Node":
    """The convolution whose filters lie on the image's pixels."""
    from inspector.layers import CONVOLUTIONS, select_layer  # noqa: PLC0415 - late: imports onnx

    if layer is not None:
        shapes = model.shapes(model.preprocessing.preprocess.size)
        chosen = select_layer(model.layers, layer, shapes, model.graph)
        made = model.graph.producer(chosen.convolution)
        if made is None or made.op_type not in CONVOLUTIONS or not _reads_pixels(model, made):
            raise UsageError(
                "the layer's filters do not act on the image's pixels", where=str(layer),
                hint="leave --layer out for the first convolution",
            )  # fmt: skip
        return made
    for made in model.graph.nodes:
        if made.op_type in CONVOLUTIONS and _reads_pixels(model, made):
            return made
    raise ModelRefused(
        "no convolution reads the image's pixels one by one", where=model.path.name,
        hint="filters of a network that rearranges its input first have no pictures",
    )  # fmt: skip


def _reads_pixels(model: "Explainer", node: "Node") -> bool:
    """Whether each element that the convolution reads is of one pixel, at the pixel's place."""
    from inspector.receptive_field import receptive_field  # noqa: PLC0415 - late: imports onnx

    source = node.inputs[0]
    if source == model.input.name:
        return True
    try:
        field = receptive_field(model.graph, source, model.input.name)
    except UsageError:  # it does not depend on the image
        return False
    return not field.global_ and field.size == (1, 1) and field.stride == (1, 1)


def _weights(model: "Explainer", node: "Node") -> Array:
    """The filters (K, C, h, w) in float64, whatever way the file spells them."""
    quantised = node.op_type == "QLinearConv"
    if node.op_type not in _FLOATING and not quantised:
        raise MethodRefused(
            f"the filters of {node.op_type} are not in the file as numbers on pixels",
            where=f"node {node.name!r}",
        )
    names = node.inputs[3:6] if quantised else node.inputs[1:2]
    values = [_value(model, name) for name in names]
    weights = values[0].astype(np.float64)
    if quantised:
        scale, zero = (v.astype(np.float64).reshape(-1, 1, 1, 1) for v in values[1:])
        weights = (weights - zero) * scale
    if weights.ndim != 4 or not np.isfinite(weights).all():
        raise MethodRefused(
            f"the weights are of shape {list(weights.shape)} or not finite",
            where=f"node {node.name!r}", hint="filters (K, C, h, w) are needed",
        )  # fmt: skip
    return weights


def _value(model: "Explainer", name: str) -> Array:
    """A tensor that no image changes; computed if it is behind a DequantizeLinear or the like."""
    known = model.graph.constant(name)
    if known is not None:
        return np.asarray(known)
    size = model.size(*model.preprocessing.preprocess.size)
    blank = np.zeros((model.input.batch or 1, model.input.channels, *size), np.float32)
    feeds = model.feeds(model.input.arrange(blank))
    return np.asarray(model.runtime.run(feeds, [name])[name])


def _activity(
    model: "Explainer",
    node: "Node",
    count: int,
    images: Iterable[Any],
    *,
    refused: list[ImageRefused],
    progress: Progress | None,
) -> tuple[Array | None, Array | None, int]:
    """Largest activation of each filter, the share of places where it is positive, and photos."""
    from inspector.features import activations  # noqa: PLC0415 - late: imports onnx

    name = _activation(model, node)
    peaks, positive, places, used = np.full(count, -np.inf), np.zeros(count), 0, 0
    for batch in batches(model, images, refused, progress):
        values = activations(model, batch.tensors, [name])[name]
        if values.ndim != 4 or values.shape[1] != count:
            raise MethodRefused(
                f"the layer is of shape {list(values.shape)}, for {count} filters", where=name
            )
        peaks = np.maximum(peaks, values.max((0, 2, 3)))
        positive += (values > 0).sum((0, 2, 3))
        places += values.shape[0] * values.shape[2] * values.shape[3]
        used += len(batch.photos)
    if refused and not used:
        raise refused[0]
    return (peaks, positive / places, used) if used else (None, None, 0)


def _activation(model: "Explainer", node: "Node") -> str:
    """The tensor behind the convolution's activation function; its own output if it is no layer."""
    made = [a.tensor for a in model.layers if a.convolution == node.outputs[0]]
    return made[0] if made else node.outputs[0]


# -- the numbers ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FilterNumbers:
    """What is measured of K filters.

    Attributes:
        shape: (K, C, h, w).
        strides: Down and across, in pixels of the image.
        dilations: Likewise.
        size: Side of the padded square under the Fourier transform.
        rms: (K,) root of the mean square of each filter's weights.
        bands: (K, 3) shares of its energy in the low, mid and high band; NaN for zeros.
        aliasing: (K,) shares of its energy above the outputs' Nyquist frequency.
        pooled_bands: (3,) the same of all filters' energy together.
        pooled_aliasing: Likewise; 0 where all filters are zeros.
        peaks: (K,) largest activation over the photos; None without photos.
        active: (K,) share of places and photos with a positive activation; None likewise.
    """

    shape: tuple[int, ...]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    size: int
    rms: Array
    bands: Array
    aliasing: Array
    pooled_bands: Array
    pooled_aliasing: float
    peaks: Array | None
    active: Array | None

    @property
    def negligible(self) -> Array:
        """(K,) filters of negligible norm."""
        found: Array = self.rms <= NEGLIGIBLE * self.rms.max()
        return found

    @property
    def inactive(self) -> Array:
        """(K,) filters whose activation is never positive over the photos."""
        none: Array = np.zeros(len(self.rms), bool)
        return none if self.peaks is None else self.peaks <= 0

    @property
    def dead(self) -> Array:
        """(K,) either of the two."""
        found: Array = self.negligible | self.inactive
        return found

    @property
    def largest_share(self) -> float:
        """Share of the largest filter in the sum of all weights' squares; 0 if all are zeros."""
        squares = self.rms**2
        return float(squares.max() / squares.sum()) if squares.any() else 0.0

    @property
    def strongest(self) -> list[int]:
        """How many filters have most of their energy in the low, mid and high band."""
        places = self.bands[~self.negligible].argmax(1)
        return [int(n) for n in np.bincount(places, minlength=len(spectrum.BANDS))]

    @property
    def mid_missing(self) -> bool:
        """Whether filters are of low and of high frequencies, and few of mid ones."""
        low, mid, high = self.strongest
        total = max(low + mid + high, 1)
        ends = min(low, high)
        return mid / total < FEW_MID and ends / total >= SOME_ENDS and ends >= mid

    def to_dict(self) -> dict[str, Any]:
        """Plain data; None where something is undefined."""
        bounds = (0.0, *spectrum.BOUNDS, None)
        return {
            "shape": self.shape,
            "strides": self.strides,
            "dilations": self.dilations,
            "transform_size": self.size,
            "bands_in_cycles_per_pixel": {
                band: list(bounds[i : i + 2]) for i, band in enumerate(spectrum.BANDS)
            },
            "nyquist_of_outputs_in_cycles_per_pixel": [1 / (2 * s) for s in self.strides],
            "thresholds": {
                "negligible_share_of_largest_rms": NEGLIGIBLE, "clipped_rms": CLIPPED_RMS,
                "much_aliasing": MUCH, "some_aliasing": SOME,
                "few_mid": FEW_MID, "some_low_and_high": SOME_ENDS,
            },
            "energy": _named(self.pooled_bands),
            "energy_of_white_noise": _named(spectrum.flat_band_shares(self.size)),
            "strongest_in": dict(zip(spectrum.BANDS, self.strongest, strict=True)),
            "mid_frequencies_missing": self.mid_missing,
            "aliasing": self.pooled_aliasing,
            "aliasing_of_white_noise": spectrum.flat_aliased_share(self.size, self.strides),
            "largest_share_of_energy": self.largest_share,
            "dead": np.flatnonzero(self.dead),
            "filters": [self._one(index) for index in range(len(self.rms))],
        }  # fmt: skip

    def _one(self, index: int) -> dict[str, Any]:
        rms = float(self.rms[index])
        defined = bool(np.isfinite(self.bands[index]).all())
        found = {
            "index": index,
            "rms": rms,
            "clipping_factor": min(1.0, CLIPPED_RMS / rms) if rms else 1.0,
            "negligible": self.negligible[index],
            "energy": _named(self.bands[index]) if defined else None,
            "aliasing": self.aliasing[index] if defined else None,
        }
        if self.peaks is not None and self.active is not None:
            found["largest_activation"] = self.peaks[index]
            found["active_share"] = self.active[index]
        return found

    def sentences(self, photos: int) -> tuple[str, ...]:
        """The diagnosis in plain language."""
        count, channels, height, width = self.shape
        stride = _pair(self.strides)
        wide = f", dilation {_pair(self.dilations)}" if max(self.dilations) > 1 else ""
        first = (
            f"{count} filters of {height}x{width} over {channels} channel(s), stride {stride}{wide}"
        )
        return (first, self._dead_sentence(photos), self._aliasing_sentence(),
                self._mid_sentence(), self._rms_sentence())  # fmt: skip

    def _dead_sentence(self, photos: int) -> str:
        over = f", or never active over {photos} photo(s)" if photos else ""
        meaning = f"RMS at most {NEGLIGIBLE:.0%} of the largest{over}"
        dead = np.flatnonzero(self.dead)
        if not dead.size:
            return f"no filter is dead ({meaning})"
        listed = ", ".join(map(str, dead[:12])) + (", ..." if dead.size > 12 else "")
        return f"{dead.size} of {len(self.rms)} filters are dead ({meaning}): {listed}"

    def _aliasing_sentence(self) -> str:
        if max(self.strides) == 1:
            return "no aliasing from this layer: at stride 1 its outputs carry all frequencies"
        bound = " and ".join(f"{1 / (2 * s):.3g}" for s in dict.fromkeys(self.strides))
        white = spectrum.flat_aliased_share(self.size, self.strides)
        text = (
            f"{self.pooled_aliasing:.0%} of the filters' energy lies above {bound} cycles per "
            f"pixel, the most that outputs at stride {_pair(self.strides)} can carry (white noise: "
            f"{white:.0%}): "
        )
        if self.pooled_aliasing > MUCH:
            remedy = "; the paper's remedy is a smaller filter and stride 2"
            return text + "much aliasing" + (remedy if max(self.strides) > 2 else "")
        return text + ("some aliasing" if self.pooled_aliasing > SOME else "little aliasing")

    def _mid_sentence(self) -> str:
        low, mid, high = self.strongest
        counts = f"{low} filters are strongest in low, {mid} in mid, {high} in high frequencies"
        if self.mid_missing:
            return counts + ": a mix of the two ends with little in between"
        return counts + f"; mid holds {self.pooled_bands[1]:.0%} of all energy"

    def _rms_sentence(self) -> str:
        above = int((self.rms > CLIPPED_RMS).sum())
        low, middle, high = self.rms.min(), np.median(self.rms), self.rms.max()
        return (
            f"RMS {low:.2g} to {high:.2g}, median {middle:.2g}; the largest filter holds "
            f"{self.largest_share:.0%} of all energy; {above} above the {CLIPPED_RMS:g} to which "
            "the paper clips (there for inputs of -128..128)"
        )


def measure(
    weights: Array,
    *,
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 1),
    peaks: Array | None = None,
    active: Array | None = None,
) -> FilterNumbers:
    """Measure filters.

    Args:
        weights: (K, C, h, w).
        strides: Down and across.
        dilations: Likewise.
        peaks: (K,) largest activation over photos, where there are photos.
        active: (K,) share of positive activations, likewise.
    """
    wide = spectrum.dilated(weights, dilations)
    size = spectrum.transform_size(*wide.shape[2:])
    energies = spectrum.energy(wide, size)
    total = energies.sum(0, keepdims=True)
    return FilterNumbers(
        shape=tuple(weights.shape),
        strides=(int(strides[0]), int(strides[1])),
        dilations=(int(dilations[0]), int(dilations[1])),
        size=size,
        rms=np.sqrt((np.asarray(weights, np.float64) ** 2).mean((1, 2, 3))),
        bands=spectrum.band_shares(energies),
        aliasing=spectrum.aliased_share(energies, strides),
        pooled_bands=np.nan_to_num(spectrum.band_shares(total)[0]),
        pooled_aliasing=float(np.nan_to_num(spectrum.aliased_share(total, strides)[0])),
        peaks=peaks,
        active=active,
    )


def _named(shares: Array) -> dict[str, float]:
    return {band: float(share) for band, share in zip(spectrum.BANDS, shares, strict=True)}


def _pair(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if numbers[0] == numbers[1] else f"{numbers[0]}x{numbers[1]}"


def _figure(
    model: "Explainer",
    node: "Node",
    weights: Array,
    found: FilterNumbers,
    *,
    sentences: Sequence[str],
    warnings: Sequence[str],
) -> Any:  # noqa: ANN401 - a PIL.Image.Image
    from inspector.render.filters import filter_sheet  # noqa: PLC0415 - late: imports Pillow

    order = model.preprocessing.preprocess.channels
    shown = weights[:, ::-1] if order == "BGR" and weights.shape[1] == 3 else weights
    return filter_sheet(
        shown,
        rms=found.rms,
        dead=found.dead,
        title=f"first-layer filters of {model.path.name}",
        subtitle=f"{node.outputs[0]}; each scaled by its largest magnitude, grey is zero",
        sentences=sentences,
        notes=warnings,
    )
