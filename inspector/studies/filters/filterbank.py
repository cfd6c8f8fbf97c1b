"""What is measured of a bank of first-layer filters, and what it says in plain language.

The weights alone tell norms, bands and what the stride could alias; photos tell which filters are
active and how much of the responses' energy the stride really folds. NumPy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inspector.measures import spectrum

__all__ = ["FilterNumbers", "PhotoNumbers", "measure"]

Array = np.ndarray[Any, Any]

NEGLIGIBLE = 0.01
"""A filter is dead if its RMS is at most this share of the largest one's."""

CLIPPED_RMS = 0.1
"""The paper scales larger filters down to this RMS (section 3)."""

MUCH, SOME = 0.5, 0.1
"""Shares of energy above the outputs' Nyquist frequency that are called so."""

FEW_MID, SOME_ENDS = 1 / 3, 0.1
"""Mid frequencies are called missing if the filters that are strongest there are fewer than the
first share, while both low and high have at least the second, and no fewer than mid has."""


@dataclass(frozen=True, eq=False)
class PhotoNumbers:
    """What photos say of K filters.

    Attributes:
        photos: How many.
        peaks: (K,) largest activation.
        active: (K,) share of places and photos with a positive activation.
        energy: (K,) energy of the responses at stride 1, over all photos.
        folded: (K,) what of it lies above the outputs' Nyquist frequency.
        own: Energy of the photos themselves, and what of it lies there.
        shares: (N,) of each photo, the share of all filters' response energy that lies there.
    """

    photos: int
    peaks: Array
    active: Array
    energy: Array
    folded: Array
    own: tuple[float, float]
    shares: Array

    @property
    def aliasing(self) -> Array:
        """(K,) share of each filter's response energy that the stride folds; NaN of none."""
        none = np.full(len(self.energy), np.nan)
        found: Array = np.divide(self.folded, self.energy, out=none, where=self.energy > 0)
        return found

    @property
    def pooled(self) -> float:
        """The same of all filters' energy together; 0 where there is none."""
        total = float(self.energy.sum())
        return float(self.folded.sum()) / total if total > 0 else 0.0

    @property
    def of_photos(self) -> float:
        """Share of the photos' own energy that outputs at this stride could not carry."""
        return self.own[1] / self.own[0] if self.own[0] > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data of all filters together."""
        known = self.shares[np.isfinite(self.shares)]
        quartiles = np.quantile(known, (0.25, 0.5, 0.75)).tolist() if known.size else None
        return {
            "photos": self.photos,
            "aliasing": self.pooled,
            "aliasing_quartiles_over_photos": quartiles,
            "aliasing_of_the_photos_themselves": self.of_photos,
        }


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
        on_photos: What photos say; None without photos.
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
    on_photos: PhotoNumbers | None

    @property
    def negligible(self) -> Array:
        """(K,) filters of negligible norm."""
        found: Array = self.rms <= NEGLIGIBLE * self.rms.max()
        return found

    @property
    def inactive(self) -> Array:
        """(K,) filters whose activation is never positive over the photos."""
        none: Array = np.zeros(len(self.rms), bool)
        return none if self.on_photos is None else self.on_photos.peaks <= 0

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
                "negligible_share_of_largest_rms": NEGLIGIBLE,
                "clipped_rms": CLIPPED_RMS,
                "much_aliasing": MUCH,
                "some_aliasing": SOME,
                "few_mid": FEW_MID,
                "some_low_and_high": SOME_ENDS,
            },
            "energy": _named(self.pooled_bands),
            "energy_of_white_noise": _named(spectrum.flat_band_shares(self.size)),
            "strongest_in": dict(zip(spectrum.BANDS, self.strongest, strict=True)),
            "mid_frequencies_missing": self.mid_missing,
            "aliasing": self.pooled_aliasing,
            "aliasing_of_white_noise": spectrum.flat_aliased_share(self.size, self.strides),
            "on_photos": None if self.on_photos is None else self.on_photos.to_dict(),
            "largest_share_of_energy": self.largest_share,
            "dead": np.flatnonzero(self.dead),
            "filters": [self._one(index) for index in range(len(self.rms))],
        }

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
        if self.on_photos is not None:
            share = float(self.on_photos.aliasing[index])
            found["largest_activation"] = self.on_photos.peaks[index]
            found["active_share"] = self.on_photos.active[index]
            found["aliasing_on_photos"] = share if np.isfinite(share) else None
        return found

    def sentences(self) -> tuple[str, ...]:
        """The diagnosis in plain language."""
        count, channels, height, width = self.shape
        stride = _pair(self.strides)
        wide = f", dilation {_pair(self.dilations)}" if max(self.dilations) > 1 else ""
        first = (
            f"{count} filters of {height}x{width} over {channels} channel(s), stride {stride}{wide}"
        )
        return (
            first,
            self._dead_sentence(),
            self._aliasing_sentence(),
            *self._folded_sentence(),
            self._mid_sentence(),
            self._rms_sentence(),
        )

    def table(self) -> list[dict[str, Any]]:
        """A row for each filter."""
        rows = []
        for index, dead in enumerate(self.dead):
            one = self._one(index)
            energy = one.pop("energy") or dict.fromkeys(spectrum.BANDS)
            rows.append({**one, **energy, "dead": bool(dead)})
        return rows

    def _dead_sentence(self) -> str:
        photos = 0 if self.on_photos is None else self.on_photos.photos
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
        text += f"{_much(self.pooled_aliasing)} aliasing"
        remedy = "; the paper's remedy is a smaller filter and stride 2"
        return text + (remedy if self.pooled_aliasing > MUCH and max(self.strides) > 2 else "")

    def _folded_sentence(self) -> tuple[str, ...]:
        if self.on_photos is None or max(self.strides) == 1:
            return ()
        text = (
            f"on {self.on_photos.photos} photo(s) the stride folds {self.on_photos.pooled:.1%} of "
            "the responses' energy onto lower frequencies (of the photos' own energy "
            f"{self.on_photos.of_photos:.1%} lies there): {_much(self.on_photos.pooled)} aliasing"
        )
        return (text,)

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
    on_photos: PhotoNumbers | None = None,
) -> FilterNumbers:
    """Measure filters.

    Args:
        weights: (K, C, h, w).
        strides: Down and across.
        dilations: Likewise.
        on_photos: What photos say, where there are photos.
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
        on_photos=on_photos,
    )


def _much(share: float) -> str:
    return "much" if share > MUCH else "some" if share > SOME else "little"


def _named(shares: Array) -> dict[str, float]:
    return {band: float(share) for band, share in zip(spectrum.BANDS, shares, strict=True)}


def _pair(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if numbers[0] == numbers[1] else f"{numbers[0]}x{numbers[1]}"
