"""Photos of a data set, each with what is known of it."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from inspector.audit.data_set.described import Annotated
from inspector.photos.sources import FolderListing
from inspector.printable import distinct_text

__all__ = ["NOT_THERE", "DataSet", "Entry"]

NOT_THERE = "the file is not there"


@dataclass(frozen=True)
class Entry:
    """A photo and what is known of it.

    Attributes:
        photo: Its name in the report: the path below the data set's folder, with ``/``; where that
            is long, or holds what no report shows, cut short with a mark of its own.
        path: The file.
        label: The class that it is said to show; None where nothing says so.
        objects: What lies on it where.
        mask: A file whose pixels other than 0 are the object; None without one.
        groups: Values of the other columns of its row.
        size: Height and width that annotations say it has; None where they do not.
    """

    photo: str
    path: Path
    label: str | None = None
    objects: tuple[Annotated, ...] = ()
    mask: Path | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    size: tuple[int, int] | None = None

    @property
    def masked(self) -> bool:
        """Whether more than a box is known of what lies on it where."""
        return self.mask is not None or any(o.outline is not None for o in self.objects)


@dataclass(frozen=True, eq=False)
class DataSet:
    """Photos in their order.

    Attributes:
        source: The folder or file that was named.
        kind: "class folders", "photos", "table", "coco", "yolo" or "voc".
        entries: The photos.
        missing: Photos that cannot be audited since there is no file, with the reason.
        renamed: Columns whose groups are called otherwise than in the table, with that name.
        listing: What lies in the folder, of which the photos are the entries; None of others.
        unused: Classes that the data set names and no photo shows.
        remarks: What else has to be said of how it was read.
    """

    source: Path
    kind: str
    entries: tuple[Entry, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    listing: FolderListing | None = None
    unused: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @cached_property
    def classes(self) -> Mapping[str, int]:
        """Photos per label, the labels in their order."""
        counted = Counter(entry.label for entry in self.entries if entry.label is not None)
        return dict(sorted(counted.items()))

    @cached_property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Values by column that names groups."""
        found: dict[str, set[str]] = {}
        for entry in self.entries:
            for name, value in entry.groups.items():
                found.setdefault(name, set()).add(value)
        return {name: tuple(sorted(values)) for name, values in found.items()}

    def named(self, name_of: Callable[[str], str]) -> "DataSet":
        """The same data set with labels and objects called as a model calls its classes."""
        entries = tuple(
            replace(
                entry,
                label=None if entry.label is None else name_of(entry.label),
                objects=tuple(
                    replace(o, label=None if o.label is None else name_of(o.label))
                    for o in entry.objects
                ),
            )
            for entry in self.entries
        )
        shown = {o.label for e in entries for o in e.objects} | {e.label for e in entries}
        named = dict.fromkeys(name_of(label) for label in self.unused)
        unused = tuple(label for label in named if label not in shown)
        return replace(self, entries=entries, unused=unused)

    def without(self, failed: Mapping[str, str]) -> "DataSet":
        """The same data set with the reasons why some photos' files are not there.

        Args:
            failed: Reasons by the file's name below the data set's folder.
        """
        why = {distinct_text(name): reason for name, reason in failed.items()}
        missing = {
            photo: next((r for n, r in why.items() if f"/{n}".endswith(f"/{photo}")), reason)
            for photo, reason in self.missing.items()
        }
        if self.kind in {"photos", "class folders", "yolo"}:  # others name their photos
            there = {entry.photo for entry in self.entries}
            missing |= {name: reason for name, reason in why.items() if name not in there}
        return replace(self, missing=missing)

    def with_groups_beside(self, taken: Collection[str]) -> "DataSet":
        """The same data set whose groups have other names than the columns of a report's rows.

        A column ``method`` of the table is the group ``data_method``.

        Args:
            taken: Names that groups may not have.
        """
        used, renamed = {*taken, *self.groups}, {}
        for name in self.groups:
            if name in taken:
                other = f"data_{name}"
                while other in used:
                    other = f"data_{other}"
                used.add(other)
                renamed[name] = other
        if not renamed:
            return self
        entries = tuple(
            replace(e, groups={renamed.get(name, name): v for name, v in e.groups.items()})
            for e in self.entries
        )
        return replace(self, entries=entries, renamed=renamed)

    def facts(self) -> dict[str, Any]:
        """Plain data for the report."""
        return {
            "source": self.source.name or str(self.source),
            "kind": self.kind,
            "photos": len(self.entries) + len(self.missing),
            "labelled": sum(entry.label is not None for entry in self.entries),
            "boxed": sum(bool(entry.objects) for entry in self.entries),
            "masked": sum(entry.masked for entry in self.entries),
            "groups": sorted(self.groups),
            "classes": dict(self.classes),
            "unused": list(self.unused),
        }
