"""Results: what was computed, from what, how, and what to be careful about.

Plain data that reproduces a figure: hashes, versions, options, results, warnings.  A report can
be saved, printed as JSON, or shown in a notebook.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from inspector.errors import ExplainedError, ImageRefused, InspectorError
from inspector.heatmap import Attribution, Heatmap
from inspector.photos.photo import Photo
from inspector.printable import in_file_name
from inspector.render import FORMATS, notebook, png, save, sheet
from inspector.render.drawing.display import PLAIN, Display

__all__ = ["Explanation", "ImageReport", "Refusal", "Report", "file_stems"]

_LABEL_LENGTH = 40
"""Characters of a target's label in a file's name."""

_STEM_BYTES, _METHOD_BYTES, _LABEL_BYTES = 120, 60, 56
"""Of the three parts of a file's name, which together with numbers and suffix may have 255."""

OF_MAPS = ("png", "svg", "pdf", "npz", "npy")
"""Formats that give each map a file of its own."""

SCHEMA = 1
"""Version of the JSON document; a field that changes its meaning raises it."""


ROW = (
    *("image", "sha256", "method", "target", "index", "score", "probability", "layer", "space"),
    *("minimum", "maximum", "peak_x", "peak_y", "empty", "warnings"),
)
"""Columns of a map in a table."""


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """One method's map for one target on one photo.

    Attributes:
        heatmap: The map in the photo's own pixels.
        label: Method with the options that differ from their defaults; names the files.
        options: Every option's value.
        facts: Measured figures: residuals, coverage of the backward rule, twin difference.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> report = model.explain("sample_models/images/horse_1.png")
        >>> report[0][0]
        <Explanation grad-cam of horse: 8 x 8>
    """

    heatmap: Heatmap
    label: str
    options: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def attribution(self) -> Attribution:
        """The map in its own space: layer (h, w) or input (C, H, W)."""
        return self.heatmap.attribution

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be known when the map is read."""
        return self.heatmap.notes

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the JSON report."""
        source = self.attribution
        values, missing = source.own, self.heatmap.uncovered
        return {
            "method": source.method,
            "options": dict(self.options),
            "layer": source.layer,
            "target": {
                "label": source.label,
                "index": source.index,
                "tensor": source.tensor,
                "score": source.score,
                "probability": source.probability,
            },
            "attribution": {
                "space": source.space,
                "shape": list(values.shape),
                "minimum": float(values.min()),
                "maximum": float(values.max()),
                "empty": source.empty,
                **({"uncovered share": round(missing, 4)} if missing else {}),
                **({} if source.placement is None else {"placed": source.placement.to_dict()}),
            },
            "peak": self._peak(),
            "facts": dict(self.facts),
            "warnings": list(self.warnings),
        }

    def row(self, photo: Photo) -> dict[str, Any]:
        """The map as a row of a table, by the names of `ROW`."""
        source, peak = self.attribution, self._peak() or {}
        return {
            "image": photo.name,
            "sha256": photo.sha256,
            "method": self.label,
            "target": source.label,
            "index": source.index,
            "score": source.score,
            "probability": source.probability,
            "layer": source.layer,
            "space": source.space,
            "minimum": self.heatmap.minimum,
            "maximum": self.heatmap.maximum,
            "peak_x": peak.get("x"),
            "peak_y": peak.get("y"),
            "empty": source.empty,
            "warnings": "; ".join(self.warnings),
        }

    def __repr__(self) -> str:
        """Method, target and size of the map."""
        shape = " x ".join(map(str, self.attribution.own.shape))
        return f"<Explanation {self.label} of {self.attribution.label}: {shape}>"

    def _peak(self) -> dict[str, int] | None:
        """The photo pixel where the heatmap is highest; x of a signal, x, y and z of a volume."""
        values = self.heatmap.own
        if self.attribution.empty or not np.isfinite(values).any():
            return None
        place = np.unravel_index(int(np.nanargmax(values)), values.shape)
        return dict(zip("xyz", (int(at) for at in place[::-1]), strict=False))


@dataclass(frozen=True)
class Refusal:
    """A map that was asked for and not drawn.

    Attributes:
        method: The method with its options.
        target: What it was to explain; empty where the method is refused for any target.
        error: Why it was not drawn.
    """

    method: str
    target: str
    error: ExplainedError

    def to_dict(self) -> dict[str, str]:
        """Plain data for the JSON report."""
        return {"method": self.method, "target": self.target, "reason": str(self.error)}


@dataclass(frozen=True, eq=False, repr=False)
class ImageReport:
    """All maps of one photo; its length is their number, and it is iterated map by map.

    Attributes:
        photo: The photo, upright.
        explanations: One per method and target, methods first.
        context: Model, preprocessing and versions, as plain data.
        predictions: The best classes: label, index, score, probability.
        warnings: What concerns the photo as a whole.
        refused: Maps that were asked for and not drawn.
        stem: Start of the file names; the photo's name without its suffix when empty.
        seen_share: Share of the photo's pixels that the preprocessing shows to the network.
        items: What the outputs say, of a model that is not a classifier: label, index, score, box
            (left, top, right, bottom) in the photo's pixels, and whether it is explained.
        reference: The photo that an embedding is compared with; drawn beside the photo.
        formats: Formats that it is saved in; the document names the files of each map.
        display: How its maps are drawn, where something is asked for.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> image = model.explain("sample_models/images/horse_1.png", "cam").images[0]
        >>> image.figure(image.explanations[0]).mode
        'RGB'
        >>> image.to_dict()["results"][0]["peak"]
        {'x': 25, 'y': 14}
    """

    photo: Photo
    explanations: tuple[Explanation, ...]
    context: Mapping[str, Any]
    predictions: Sequence[Mapping[str, Any]]
    warnings: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()
    stem: str = ""
    seen_share: float | None = None
    items: Sequence[Mapping[str, Any]] = ()
    reference: Photo | None = None
    formats: Sequence[str] = FORMATS
    display: Display = PLAIN

    def __len__(self) -> int:
        """Maps that were drawn."""
        return len(self.explanations)

    def __iter__(self) -> Iterator[Explanation]:
        """Map by map."""
        return iter(self.explanations)

    def __getitem__(self, place: int) -> Explanation:
        """One map."""
        return self.explanations[place]

    def __repr__(self) -> str:
        """The photo and its maps."""
        maps = ", ".join(f"{one.label} of {one.attribution.label}" for one in self)
        return f"<ImageReport {self.photo.name}: {maps or 'no map'}>"

    @property
    def name(self) -> str:
        """Start of the file names, and name of the report's file."""
        return self.stem or safe_stem(self.photo.name)

    def document(self) -> dict[str, Any]:
        """Plain data for the JSON report."""
        return {
            "schema": SCHEMA,
            **self.context,
            "image": {
                "name": self.photo.name,
                "sha256": self.photo.sha256,
                "size": list(self.photo.sizes),
                "notes": list(self.photo.notes),
                "seen share": self.seen_share,
            },
            "predictions": [dict(p) for p in self.predictions],
            **({} if self.reference is None else {"reference": _named_photo(self.reference)}),
            **({"items": [dict(one) for one in self.items]} if self.items else {}),
            "results": [
                e.to_dict() | {"files": {f: f"{name}.{f}" for f in OF_MAPS if f in self.formats}}
                for name, e in self._named()
            ],
            "refused": [refusal.to_dict() for refusal in self.refused],
            "warnings": list(self.warnings),
        }

    def figures(self) -> dict[str, Callable[[], Image]]:
        """Functions that draw the overlay figures and, last, the contact sheet, by file name."""
        found: dict[str, Callable[[], Image]] = {
            name: partial(self.figure, explanation) for name, explanation in self._named()
        }
        return {**found, f"{self.name}.sheet": self.sheet} if found else {}

    def tables(self) -> dict[str, Sequence[Mapping[str, Any]]]:
        """No tables."""
        return {}

    def maps(self) -> dict[str, Heatmap]:
        """The heatmap of each explanation, by file name."""
        return {name: explanation.heatmap for name, explanation in self._named()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the JSON report; the same as ``document``."""
        return self.document()

    def figure(self, explanation: Explanation) -> Image:
        """Overlay figure of one explanation, a ``PIL.Image.Image``."""
        return png.overlay(
            self.photo,
            explanation.heatmap,
            model=self._model_name,
            notes=self.warnings,
            reference=self.reference,
            display=self.display,
        )

    def show(self) -> None:
        """Show the figure, or the sheet of several; see ``Report.show``."""
        if self.explanations:
            notebook.show(self, self.sheet() if len(self) > 1 else self.figure(self[0]))

    def sheet(self) -> Image:
        """Contact sheet of all explanations, a ``PIL.Image.Image``."""
        heatmaps = [e.heatmap for e in self.explanations]
        missing = [f"{one.method} is not drawn: {one.error}" for one in self.refused]
        return sheet.contact_sheet(
            self.photo,
            heatmaps,
            model=self._model_name,
            notes=[*self.warnings, *missing],
            reference=self.reference,
            display=self.display,
        )

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        *,
        sheet: bool = False,
        formats: Sequence[str] = FORMATS,
    ) -> list[Path]:
        """Write PNG, NPZ and JSON; each file whole or not at all.

        Args:
            folder: Made when it does not exist.
            stem: Start of the file names; that of the report when None.
            sheet: Whether to write a contact sheet too.
            formats: Names of output formats; see ``inspector.render``.

        Returns:
            The files, the report last.

        Raises:
            UsageError: There is no such format, or the place cannot be written to.
        """
        named = replace(self, stem=stem or self.stem, formats=tuple(formats))
        return save(named, folder, formats, without=() if sheet else (f"{named.name}.sheet",))

    def _named(self) -> Iterator[tuple[str, Explanation]]:
        """Explanations by file name: photo, method and target; a number where two are alike."""
        seen: dict[str, int] = {}
        for explanation in self.explanations:
            words = [in_file_name(explanation.label, gap="-", kept="+.-", most=_METHOD_BYTES)]
            words += filter(None, [_in_file_name(explanation.attribution.label)])
            name = ".".join([self.name, *words])
            rank = seen[name.lower()] = seen.get(name.lower(), 0) + 1
            yield name + (f".{rank}" if rank > 1 else ""), explanation

    @property
    def _model_name(self) -> str:
        return str(self.context.get("model", {}).get("name", ""))

    def _repr_html_(self) -> str:
        """Show itself in a notebook."""
        if not self.explanations:
            return notebook.text("; ".join(str(refusal.error) for refusal in self.refused))
        maps = ", ".join(f"{one.label} of {one.attribution.label}" for one in self)
        return notebook.html(
            self.sheet() if len(self.explanations) > 1 else self.figure(self.explanations[0]),
            f"{self.photo.name}: {maps}",
        )


def _named_photo(photo: Photo) -> dict[str, Any]:
    return {"name": photo.name, "sha256": photo.sha256, "size": list(photo.size)}


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """What ``explain`` returns: one ``ImageReport`` per readable photo, in order.

    Its length is the number of photos, and it is iterated photo by photo.

    Attributes:
        images: The photos that were explained.
        refused: The photos that could not be read, with the reason in each.

    Example:
        >>> import inspector
        >>> model = inspector.load("sample_models/resnet20.onnx")
        >>> report = model.explain("sample_models/images/horse_1.png")
        >>> report.heatmap.shape, report.attribution.shape
        ((32, 32), (8, 8))
        >>> [path.name for path in report.save("out")]
        ['horse_1.grad-cam.horse.png', 'horse_1.grad-cam.horse.npz', 'horse_1.json']
    """

    images: tuple[ImageReport, ...]
    refused: tuple[ImageRefused, ...] = field(default=())

    @classmethod
    def of(cls, found: Iterable[ImageReport | ImageRefused]) -> "Report":
        """What was found of some photos.

        Raises:
            InspectorError: No map of any could be drawn, and why.
        """
        items = list(found)
        refused = tuple(item for item in items if isinstance(item, ImageRefused))
        reports = tuple(item for item in items if isinstance(item, ImageReport))
        if not any(report.explanations for report in reports):
            errors = [refusal.error for report in reports for refusal in report.refused]
            if errors or refused:
                raise [*errors, *refused][0]
        return cls(reports, refused)

    def __len__(self) -> int:
        """Photos that were explained."""
        return len(self.images)

    def __iter__(self) -> Iterator[ImageReport]:
        """Photo by photo."""
        return iter(self.images)

    def __getitem__(self, place: int) -> ImageReport:
        """The report of one photo."""
        return self.images[place]

    def __repr__(self) -> str:
        """How much it holds."""
        methods = ", ".join(dict.fromkeys(one.label for one in self.explanations))
        refused = f"; {len(self.refused)} image(s) refused" if self.refused else ""
        maps = f"{len(self.explanations)} map(s)" + (f" ({methods})" if methods else "")
        return f"<Report: {len(self.images)} image(s), {maps}{refused}>"

    @cached_property
    def explanations(self) -> tuple[Explanation, ...]:
        """Every map of every photo."""
        return tuple(e for image in self.images for e in image.explanations)

    @property
    def explanation(self) -> Explanation:
        """The only map.

        Raises:
            InspectorError: there is none, or more than one.
        """
        if len(self.explanations) != 1:
            raise InspectorError(
                f"the report holds {len(self.explanations)} maps, not one",
                hint="iterate over .explanations",
            )
        return self.explanations[0]

    @property
    def heatmap(self) -> np.ndarray[Any, Any]:
        """The only map in the photo's own pixels, float32 (H, W); NaN where nothing was seen."""
        return self.explanation.heatmap.values

    @property
    def attribution(self) -> np.ndarray[Any, Any]:
        """The only map in its own space: layer (h, w) or input (C, H, W), float32."""
        return self.explanation.attribution.values

    def save(
        self, folder: str | Path, *, sheet: bool = False, formats: Sequence[str] = FORMATS
    ) -> list[Path]:
        """Write all photos' files into a folder; see ``ImageReport.save``."""
        stems = file_stems(
            [image.photo.name for image in self.images],
            [image.photo.path.parent.name if image.photo.path else "" for image in self.images],
        )

        def keep(image: ImageReport, stem: str) -> list[Path]:
            return image.save(folder, stem, sheet=sheet, formats=formats)

        # Encoders let other threads run; one photo's files are written in order.
        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="save") as pool:
            return [path for paths in pool.map(keep, self.images, stems) for path in paths]

    def to_dataframe(self) -> Any:
        """The maps as a table of pandas, one row each: photo, method, target, numbers, warnings.

        Raises:
            MissingExtra: pandas is not installed.
        """
        from inspector.errors import require

        require("pandas", "a table of pandas", "dataframe")
        import pandas as pd

        return pd.DataFrame(
            [explanation.row(image.photo) for image in self for explanation in image],
            columns=list(ROW),
        )

    def figure(self, ax: Any = None) -> Any:
        """The maps on axes of Matplotlib, one beside the other, a row per photo.

        Args:
            ax: Axes to draw the only map on; None for a figure of its own.

        Returns:
            ``ax``, or the figure.

        Raises:
            MissingExtra: Matplotlib is not installed.
            InspectorError: There is no map; or several, and one pair of axes.
        """
        from inspector.render.axes import draw_on, figure_of

        if ax is not None:
            _ = self.explanation
            image = next(image for image in self if image.explanations)
            return draw_on(ax, image.photo, image.explanations[0].heatmap)
        if not self.explanations:
            raise InspectorError("the report holds no map")
        return figure_of(
            [[(image.photo, one.heatmap) for one in image] for image in self if len(image)]
        )

    def show(self) -> None:
        """Show the figures: in a notebook in their place, else in the viewer of pictures."""
        for image in self:
            image.show()

    def to_dict(self) -> dict[str, Any]:
        """Plain data of all photos."""
        return {
            "schema": SCHEMA,
            "images": [image.to_dict() for image in self.images],
            "refused": [str(error) for error in self.refused],
        }

    def _repr_html_(self) -> str:
        """Show itself in a notebook."""
        return "".join(image._repr_html_() for image in self.images)


def _in_file_name(label: str) -> str:
    """A target's label as a part of a file's name: ``tiger-cat``, ``output-0-3``."""
    words = in_file_name(label, gap="-", kept="+-", most=4 * _LABEL_LENGTH, runs=True)
    short = words[:_LABEL_LENGTH].encode()[:_LABEL_BYTES].decode(errors="ignore")
    return short.strip("-")


def safe_stem(name: str) -> str:
    """File name without its suffix and without anything a file system could stumble over."""
    stem = in_file_name(Path(name).stem.strip(". "), gap="_", kept="+.- ", most=_STEM_BYTES)
    return stem.strip(". ") or "image"


def file_stems(names: Sequence[str], folders: Sequence[str] = ()) -> list[str]:
    """Distinct file stems for names that may share one: ``dogs-01``, ``cats-01``; ``cat-2``.

    Args:
        names: File names.
        folders: Names of the folders that they lie in, as many, or none.
    """
    taken: set[str] = set()
    stems = []
    bases = [safe_stem(name) for name in names]
    shared = Counter(base.lower() for base in bases)
    for base, folder in zip_longest(bases, folders, fillvalue=""):
        own = base
        if folder and shared[base.lower()] > 1:
            own = in_file_name(f"{folder}-{base}", gap="_", kept="+.- ", most=_STEM_BYTES)
        stem, number = own, 1
        while stem.lower() in taken:  # some file systems do not tell cases apart
            number += 1
            stem = f"{own}-{number}"
        taken.add(stem.lower())
        stems.append(stem)
    return stems
