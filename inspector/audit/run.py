"""Run of an audit: thresholds first, then every photo, then what all of them say."""

import datetime as dt
import hashlib
import json
import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from converters.errors import first_few
from converters.plain_values import parse_json
from converters.regular_file import read_regular
from inspector.audit.data_set import DataSet, open_data_set
from inspector.audit.data_set.described import few
from inspector.audit.data_set.same_content import copies_named
from inspector.audit.engines.local import audit_rows, usual_workers
from inspector.audit.engines.ray_data import require_ray
from inspector.audit.findings import find_findings
from inspector.audit.findings.clusters import find_clusters, require_clustering
from inspector.audit.gates import Gate, Names, check, parse, read_gates, verdict
from inspector.audit.interventions import Interventions
from inspector.audit.lock import Lock, check_lock, read_lock, write_lock
from inspector.audit.numbers.faithful import faithfulness_of
from inspector.audit.numbers.reference import Reference
from inspector.audit.numbers.summary import calibration, groups_of, metrics, suspicious
from inspector.audit.remote.staging import Fetched
from inspector.audit.report import AuditReport, require_formats
from inspector.audit.report.exports import require_exports, write_exports
from inspector.audit.rows import COLUMNS, Asked, Auditor, Row
from inspector.compare.verdict import NUMBERS
from inspector.errors import ImageRefused, UsageError
from inspector.measures.statistics import require_scipy
from inspector.network.classifier.head import require_linear
from inspector.opening import Opening
from inspector.passes.journal import Journal, discard, identity_of
from inspector.photos.dataset import class_indices
from inspector.photos.photo import turned_within_its_size
from inspector.printable import clean_text
from inspector.versions import versions
from inspector.whole_file import check_folder, inside

__all__ = ["AuditOptions", "audit"]

Progress = Callable[[str, int, int], None]

SCHEMA = 1
"""Version of the document; a field that changes its meaning raises it."""

_MOST_REPORT = 1 << 30
_NAMED = 5
THUMBNAILS = "thumbnails"


@dataclass(frozen=True)
class AuditOptions:
    """What an audit is asked.

    Attributes:
        method: The method with its options, or several, of which the first is measured and the
            others are shown beside it; None for the one that is right for the task.
        target: What is explained of each photo, as `inspector explain` takes it.
        layer: Layer of the CAM methods.
        task: What the outputs mean; None to find it out.
        fail_if: Conditions under which the audit fails, such as ``top1 < 0.8``.
        thresholds: A TOML file with more of them; None for none.
        engine: "local" for processes of this machine, "ray" for a Ray cluster.
        workers: Processes, or actors of Ray; 0 for one per core.
        thumbnails: Whether small pictures are written.
        faithfulness: Photos whose maps are tried by deletion and insertion; 0 for none.
        seed: Of draws: photos of interventions, clusters of large classes.
        reference: Another model, with which the audited one is compared over the same photos.
        lock: Where the lock of this audit is written; None for nowhere.
        against: A lock that the audit is checked against; None for none.
        exports: Viewers of data sets that it is exported for, below the report's folder.
        fresh: Whether an interrupted run is begun anew, and another run's report replaced.
        fetched: What is known of a data set that was fetched from a remote address, of which
            ``data`` is the copy; None for one of this machine.
        named: Files and folders that the request names beside ``data``: where one of them lies in
            its folder, that it is not a photo is not said.
    """

    method: str | tuple[str, ...] | None = None
    target: str | None = None
    layer: str | None = None
    task: str | None = None
    fail_if: tuple[str, ...] = ()
    thresholds: Path | None = None
    engine: str = "local"
    workers: int = 0
    thumbnails: bool = True
    faithfulness: int = 0
    seed: int = 0
    reference: Path | None = None
    lock: Path | None = None
    against: Path | None = None
    exports: tuple[str, ...] = ()
    fresh: bool = False
    fetched: Fetched | None = None
    named: tuple[Path, ...] = ()


def audit(
    opening: Opening,
    data: Path,
    folder: Path,
    options: AuditOptions = AuditOptions(),
    *,
    progress: Progress | None = None,
) -> AuditReport:
    """Audit a model over a data set, and write the report.

    Args:
        opening: What opens the model.
        data: A folder of photos, a table, or annotations; see ``open_data_set``.
        folder: Where the report is written; also what is kept of an interrupted run.
        options: What is asked.
        progress: Called with (what, done, total).

    Returns:
        The report, written already.

    Raises:
        MissingExtra: The extra ``audit`` is not installed.
        UsageError: Thresholds, data set or folder that cannot be used; nothing was computed.
        InspectorError: The model or the request is refused.
        ImageRefused: No photo could be audited.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from inspector.audit.run import audit
        >>> from inspector.opening import Opening
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     photos = Path("sample_models/images")
        ...     found = audit(Opening("sample_models/resnet20.onnx"), photos, Path(folder))
        >>> found.contents["data"]["photos"], found.passed
        (20, None)
    """
    on_ray = (require_ray,) if options.engine == "ray" else ()
    require_scipy("audit")
    for needed in (require_clustering, require_formats, *on_ray):
        needed()
    require_exports(options.exports, thumbnails=options.thumbnails)
    check_folder(folder)
    for name in options.exports:
        inside(folder, name)
    place = inside(folder, THUMBNAILS) if options.thumbnails else None
    asked = Asked(
        opening, options.method, options.target, options.layer, options.task, thumbnails=place
    )
    auditor = Auditor(asked)
    _check_request(auditor, options)
    found = _data_set(data, auditor, options.fetched)
    reference = None
    if options.reference is not None:
        reference = Reference.open(options.reference, opening, options.target, options.layer)
    locked = _lock(options, auditor, found)
    gates = _gates(options, found, reference)
    identity = _identity(auditor, found, options)
    _check_report(folder, identity, fresh=options.fresh)
    declared = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    path = folder / "audit.partial.jsonl"
    if options.fresh:
        discard(path)
    journal = Journal(path, identity)
    workers = options.workers
    if options.engine == "local":
        workers = workers or usual_workers(len(found.entries))
    try:
        rows = audit_rows(
            auditor,
            found.entries,
            workers=workers,
            journal=journal,
            engine=options.engine,
            progress=progress,
        )
    finally:
        journal.close()
    if all(row["refused"] for row in rows):
        raise ImageRefused(
            f"none of the {len(rows)} photos could be audited: {rows[0]['refused']}",
            where=rows[0]["photo"],
        )
    contents = _document(auditor, found, rows, options, identity=identity)
    contents["declared"] = declared
    if reference is not None:
        done = [e for e, row in zip(found.entries, rows, strict=True) if not row["refused"]]
        contents["compare"] = reference.compared(
            done,
            method=options.method,
            target=options.target,
            layer=options.layer,
            seed=options.seed,
            progress=progress,
        )
    if locked is not None:
        contents["lock"] = check_lock(locked, auditor, found.entries, contents["summary"])
    thresholds = [gate.row(contents) for gate in gates]
    contents |= {"thresholds": thresholds, "verdict": verdict(thresholds)}
    report = AuditReport(_ordered(contents), rows, taken_over=journal.found)
    report.save(folder)
    write_exports(options.exports, report, found.entries, folder)
    if options.lock is not None:
        write_lock(options.lock, auditor, found, rows, contents["summary"])
    journal.finish()
    return report


def _check_request(auditor: Auditor, options: AuditOptions) -> None:
    """Refuse what no photo could be audited by, before the first one.

    Raises:
        UsageError: The model makes vectors, and none of their numbers was asked for.
        MethodRefused: The method that is measured is CAM, and the head rules it out.
    """
    if "head" in auditor.run.requests[0].method.needs:
        require_linear(auditor.opened.head)
    reading = auditor.run.reading
    if reading is not None and reading.task == "embedding" and options.target is None:
        raise UsageError(
            "the model makes a vector of each photo, of which no number is a prediction",
            where=auditor.opened.path.name,
            hint="--target 'OUTPUT[i]' audits one of its numbers",
        )


def _data_set(data: Path, auditor: Auditor, fetched: Fetched | None) -> DataSet:
    """The data set, its labels called as the model calls its classes."""
    labels = auditor.opened.class_labels
    found = open_data_set(data, (*labels.names, *labels.ids)).named(_names(auditor))
    found = found.with_groups_beside(COLUMNS)
    return found if fetched is None else found.without(fetched.failed)


def _names(auditor: Auditor) -> Callable[[str], str]:
    """What the model calls the class of a label; the label where it names none, or several."""
    labels, count = auditor.opened.class_labels, auditor.opened.scores.classes
    names = labels.names
    known: dict[str, str] = {}

    def name_of(label: str) -> str:
        if label not in known:
            found = class_indices(label, names, count, labels.ids)
            one = names[found[0]] if len(found) == 1 and found[0] < len(names) else ""
            known[label] = one or unicodedata.normalize("NFC", label)
        return known[label]

    return name_of


def _lock(options: AuditOptions, auditor: Auditor, found: DataSet) -> Lock | None:
    """The lock that the run is checked against, which is of this model and data set."""
    if options.against is None:
        return None
    # Not Path.resolve: it raises where links form a circle.
    if options.lock is not None and os.path.realpath(options.lock) == os.path.realpath(
        options.against
    ):
        raise UsageError(
            "is both checked against and written",
            where=str(options.lock),
            hint="check against it first; --lock alone writes it anew",
        )
    locked = read_lock(options.against)
    locked.require_same(auditor, found)
    return locked


def _gates(options: AuditOptions, found: DataSet, reference: Reference | None) -> list[Gate]:
    """The thresholds, read and checked against what is known before the first photo.

    A lock that the run is checked against is a threshold too, unless another speaks of it.
    """
    names = Names(
        tuple(found.classes),
        found.groups,
        compare=() if reference is None else NUMBERS,
        outputs=() if reference is None else reference.outputs,
        lock=options.against is not None,
    )
    gates = [parse(text, names) for text in options.fail_if]
    if options.thresholds is not None:
        gates += read_gates(options.thresholds, names)
    spoken = {number.base for gate in gates for number in gate.numbers.values()}
    if options.against is not None and not any(base.startswith("lock.") for base in spoken):
        gates.append(parse("lock.moved > 0", names, source=options.against.name))
    check(gates)
    return gates


_OF_NO_ROW = frozenset(
    {"engine", "workers", "fresh", "fetched", "reference", "lock", "against", "exports", "named"}
)
"""Options on which no row depends."""


def _identity(auditor: Auditor, found: DataSet, options: AuditOptions) -> str:
    """Name of a run: everything that a row depends on."""
    asked = {
        key: str(value)
        for key, value in asdict(replace(options, fail_if=(), thresholds=None)).items()
        if key not in _OF_NO_ROW
    }
    described = hashlib.sha256(
        json.dumps(
            [
                [e.photo, e.label, [o.described() for o in e.objects], str(e.mask), dict(e.groups)]
                for e in found.entries
            ]
        ).encode()
    ).hexdigest()
    facts = {"options": asked, "data": described, **auditor.opened.context(None)}
    if options.fetched is not None:  # each run has its own copy
        return identity_of({**facts, "remote": options.fetched.version}, [])
    return identity_of(facts, [entry.path for entry in found.entries])


def _check_report(folder: Path, identity: str, *, fresh: bool) -> None:
    """Refuse a folder that holds the report of another run.

    Raises:
        UsageError: It does, or something else of that name.
    """
    path = folder / "report.json"
    if fresh or not path.exists():
        return
    try:
        found = parse_json(read_regular(path, _MOST_REPORT, follow=False))
        other = found.get("run", {}).get("identity") if isinstance(found, dict) else None
    except (OSError, ValueError):
        other = None
    if other != identity:
        raise UsageError(
            "holds the report of another run",
            where=str(folder),
            hint="choose another folder with -o, or replace it with --fresh",
        )


def _document(
    auditor: Auditor, found: DataSet, rows: list[Row], options: AuditOptions, *, identity: str
) -> dict[str, Any]:
    opened = auditor.opened
    done = [row for row in rows if not row["refused"]]
    places = [place for place, row in enumerate(rows) if not row["refused"]]
    classifies = auditor.run.reading is None and opened.scores.classifier
    entries = [found.entries[place] for place in places]
    faithful = None
    if classifies and options.faithfulness:
        # It adds to the rows, which everything below is made of.
        faithful = faithfulness_of(auditor, entries, done, options.faithfulness, options.seed)
    groups = groups_of(done, found.groups)
    clusters, of_done = find_clusters(done, tuple(found.groups), options.seed)
    for place, name in of_done.items():
        done[place]["cluster"] = name
    summary = metrics(done)
    changes = Interventions(auditor, entries, done, options.seed) if classifies else None
    reading = auditor.run.reading
    reason = opened.scores.why if reading is None else reading.why
    by_twin = auditor.run.requests[0].method.by_twin
    certificate = opened.certificate_of(auditor.run.spec.tensors()[0], twin=by_twin)
    context = opened.context(None)
    refused = [{"photo": row["photo"], "reason": row["refused"]} for row in rows if row["refused"]]
    refused += [{"photo": name, "reason": reason} for name, reason in found.missing.items()]
    return {
        "schema": SCHEMA,
        "program": {"name": "onnx-inspector", "version": versions()["onnx-inspector"]},
        "run": {"identity": identity},
        "model": context,
        "task": {"name": "classifier" if reading is None else reading.task, "reason": reason},
        "certificate": {"passed": certificate.passed, "text": certificate.text},
        "data": {**found.facts(), "audited": len(done), "refused": refused},
        "options": {
            "method": done[0]["method"],
            "target": options.target or "top1",
            "layer": options.layer,
            "seed": options.seed,
        },
        "summary": summary,
        "class": groups_of(done, ["label"])["label"],
        "group": groups,
        "calibration": calibration(done),
        "faithfulness": faithful,
        "clusters": clusters,
        "findings": find_findings(clusters, of_done, done, changes, summary=summary, groups=groups),
        "suspicious": suspicious(done),
        "warnings": _warnings(auditor, rows, found, options.named),
        "compare": None,
        "lock": None,
    }


def _warnings(
    auditor: Auditor, rows: Sequence[Row], found: DataSet, named: Sequence[Path]
) -> list[str]:
    opened = auditor.opened
    said = [*opened.preprocessing.warnings, *opened.class_labels.warnings]
    if found.classes:
        unknown = [
            name
            for name in {row["label"]: None for row in rows if not row["refused"]}
            if name is not None
            and not any(row["correct"] is not None for row in rows if row["label"] == name)
        ]
        if unknown:
            said.append(f"labels that are not classes of the model: {first_few(unknown, 5)}")
    said += [
        f"the column {name!r} of the table is called {other!r} here: rows have their own {name!r}"
        for name, other in found.renamed.items()
    ]
    said += found.remarks
    if found.unused:
        said.append(f"classes of the data set that no photo shows: {few(found.unused, _NAMED)}")
    said += _not_shown(auditor, found)
    classes = {name.casefold() for name in opened.class_labels.names}
    if columns := [name for name in found.groups if name.casefold() in classes]:
        said.append(
            "columns that are called like classes of the model are groups: "
            f"{few(columns, _NAMED)}; labels stand in one column `label`, several of a "
            "photo with | between them"
        )
    said += copies_named(found.entries)
    outside = [
        row["photo"]
        for entry, row in zip(found.entries, rows, strict=True)
        if entry.objects and row["box_area"] is None and not row["refused"]
    ]
    if outside:
        said.append(f"no box lies on what the network sees of a photo: {few(outside, _NAMED)}")
    blank = [
        row["photo"]
        for entry, row in zip(found.entries, rows, strict=True)
        if entry.masked and row["mask_area"] is None and not row["refused"]
    ]
    if blank:
        said.append(
            "masks without a pixel inside, white or the number of a class, of what the network "
            f"sees: {few(blank, _NAMED)}"
        )
    unsure = [
        entry.photo
        for entry in found.entries
        if entry.masked and turned_within_its_size(entry.path)
    ]
    if unsure:
        said.append(
            "photos that EXIF turns within their size, whose masks are taken to be of the upright "
            f"photo: {few(unsure, _NAMED)}"
        )
    if found.listing is not None:
        said += found.listing.left_out(named)
        if found.listing.empty:
            empty = [clean_text(str(path)) for path in found.listing.empty]
            said.append(f"folders without a photo: {few(empty, _NAMED)}")
    return list(dict.fromkeys(filter(None, said)))


def _not_shown(auditor: Auditor, found: DataSet) -> list[str]:
    """What is said of classes of the model that no photo shows, where labels name the others."""
    labels, count = auditor.opened.class_labels, auditor.opened.scores.classes
    names = {clean_text(name): None for name in labels.names}
    given = {o.label for e in found.entries for o in e.objects if o.label} | set(found.classes)
    shown = {*given}
    for label in given:  # several classes, of which one has to be predicted
        if "|" in label:
            meant = class_indices(label, labels.names, count, labels.ids)
            shown |= {clean_text(labels.names[i]) for i in meant if i < len(labels.names)}
    if not shown & set(names):
        return []
    rest = [name for name in names if name not in shown and name not in found.unused]
    if not rest:
        return []
    shown_not = few(rest, _NAMED)
    return [f"{len(rest)} of {len(names)} classes of the model are shown by no photo: {shown_not}"]


_KEYS = (
    *("schema", "program", "run", "verdict", "thresholds", "declared", "model", "task"),
    *("certificate", "data", "options", "summary", "class", "group", "calibration"),
    *("faithfulness", "clusters", "findings", "suspicious", "warnings", "compare", "lock"),
)


def _ordered(contents: dict[str, Any]) -> dict[str, Any]:
    return {key: contents[key] for key in _KEYS}
