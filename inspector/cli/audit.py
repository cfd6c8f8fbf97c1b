"""``inspector audit``: a model over a whole data set."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli import say, supervise
from inspector.cli.options import (
    OPENING,
    Command,
    OutputFile,
    OutputFolder,
    count,
    json_report,
    model_options,
    named_paths,
    opening_of,
    output_folder,
    supervised,
)
from inspector.cli.streams import progress_bar, show, show_json
from inspector.errors import ImageRefused, UsageError

if TYPE_CHECKING:
    from inspector.audit.report import AuditReport

GATE_FAILED = 1
_SHOWN = 5


class _Data(click.Path):
    """A path, or an address that fsspec opens."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or the address as text.

        Raises:
            UsageError: The address is refused.
        """
        from inspector.audit.remote.staging import check_address, is_remote

        if is_remote(value):
            return check_address(value)
        return Path(str(super().convert(value, param, ctx)))


class _Report(OutputFolder):
    """A folder to write into, or an address that fsspec opens."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or the address as text.

        Raises:
            UsageError: The address is refused, or the folder cannot be written into.
        """
        from inspector.audit.remote.staging import check_address, is_remote

        if is_remote(value):
            return check_address(value)
        return super().convert(value, param, ctx)


@click.command("audit", cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=_Data())
@click.option(
    "-m",
    "--method",
    metavar="METHOD",
    multiple=True,
    help="A method as `explain` takes it; of several the first is measured, and the page shows the "
    "others beside it.  [default: the one that is right for the task]",
)
@click.option(
    "--target",
    metavar="T",
    help="What is explained of each photo, as in `explain`.  [default: top1]",
)
@click.option("--layer", metavar="L", help="Layer for the CAM methods.  [default: as `explain`]")
@click.option("--task", metavar="TASK", help="What the outputs mean, as in `explain`.")
@click.option(
    "--fail-if",
    "fail_if",
    metavar="CONDITION",
    multiple=True,
    help="End with status 1 where this holds of the report, as in 'top1 < 0.8' or "
    "'class.dog.inside_box < 0.5'; may be repeated.",
)
@click.option(
    "--thresholds",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file with more conditions: fail-if = [...] in the table [thresholds].",
)
@click.option(
    "--reference",
    metavar="OTHER",
    type=click.Path(path_type=Path),
    help="Another model (the float one, the last version) that MODEL is compared with over the "
    "same photos; gates speak of it as compare.flip_rate, compare.sqnr ...",
)
@click.option(
    "--lock",
    metavar="FILE",
    type=OutputFile(),
    help="Write golden outputs and maps of a few photos, their noise band and the numbers here, "
    "for version control.",
)
@click.option(
    "--against",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Say what moved beyond the noise band of a file that --lock wrote; status 1 if anything "
    "did, or as conditions on lock.moved say.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or a Ray cluster: the one that RAY_ADDRESS names, else one "
    "that is started here. The rows are the same.",
)
@count("--workers", 0, "Processes (or actors of Ray) side by side; 0 for one per core.")
@click.option(
    "--thumbnails/--no-thumbnails", default=True, help="Write small pictures of photos and maps."
)
@count(
    "--faithfulness",
    0,
    "Photos whose maps are tried by deletion and insertion, beside a random map, edges and "
    "the centre; 176 forward passes each.",
)
@count("--seed", 0, "Of draws.")
@click.option(
    "--export",
    "exports",
    type=click.Choice(["fiftyone", "virelay"]),
    multiple=True,
    help="Also write the photos with their maps for this viewer, below the report's folder; may be "
    "repeated.",
)
@click.option(
    "--recheck",
    metavar="REPORT",
    type=click.Path(path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, path: None if path is None else _recheck(context, path),
    help="Look at a finished report again, without MODEL and DATA: its files by their hashes, its "
    "numbers from its rows, its verdict from its thresholds; status 1 where anything differs.",
)
@click.option(
    "--fresh",
    is_flag=True,
    help="Begin anew where an interrupted run could go on, and replace another run's report.",
)
@output_folder(
    "Folder, or address as for DATA, for report.html, report.json, rows.csv and the other files.",
    _Report(),
)
@json_report
@model_options
def command(**options: Any) -> int:
    """Audit MODEL over DATA: what does it look at in a whole data set, and may it ship?

    DATA is a folder of photos (folders of classes, COCO, YOLO or Pascal VOC annotations), a table
    (.csv or .parquet: image, label, boxes x0,y0,x1,y1, mask, groups), or COCO annotations (.json);
    here or at an address that fsspec opens (s3://, gs://, hf:// ...).
    """
    limits = {name: options.pop(name) for name in ("timeout", "memory")}
    opening = {name: options.pop(name) for name in OPENING}
    if isinstance(options["data"], Path) and isinstance(options["output"], Path):
        return _supervised(opening, limits, options)
    return _staged(opening, limits, options)


def _supervised(
    opening: Mapping[str, Any], limits: Mapping[str, Any], options: Mapping[str, Any]
) -> int:
    if options["engine"] == "ray":
        # Ray starts processes of its own, here and elsewhere, which need more than a cap and the
        # command's own files.
        return supervise.run(
            lambda: _audit(opening, **options), seconds=limits["timeout"] or None, memory=None
        )
    return supervised(lambda: _audit(opening, **options), device=opening["device"], **limits)


def _staged(
    opening: Mapping[str, Any], limits: Mapping[str, Any], options: Mapping[str, Any]
) -> int:
    """Fetch, audit without credentials, and store."""
    from inspector.audit.remote.staging import staged, without_credentials

    if "fiftyone" in options["exports"]:
        raise UsageError(
            "the export for FiftyOne leads to the photos, of which a copy is audited",
            hint="fetch the data set first, or leave --export fiftyone out",
        )
    with contextlib.ExitStack() as stack:
        with progress_bar("fetch") as progress:
            place = stack.enter_context(
                staged(
                    options["data"],
                    options["output"],
                    seconds=limits["timeout"] or None,
                    progress=progress,
                )
            )
        if (fetched := place.fetched) is not None:
            size = f"{fetched.files} files, {fetched.size / 1e6:.3g} MB"
            say(f"{fetched.url}: {size} fetched", "note")
        local = {"data": place.data, "output": place.folder}
        # What the command names is what its work may read and write.
        click.get_current_context().params.update(local)
        shown = place.target or str(place.folder)
        with without_credentials():
            status = _supervised(
                opening, limits, {**options, **local, "fetched": fetched, "shown": shown}
            )
        if place.store():
            say(f"{place.target}: stored", "note")
        return status


def _audit(
    opening: Mapping[str, Any],
    *,
    model: Path,
    data: Path,
    output: Path,
    as_json: bool,
    shown: str = "",
    **options: Any,
) -> int:
    from inspector.audit.run import AuditOptions, audit
    from inspector.render.json import plain

    methods = options.pop("method")
    asked = AuditOptions(
        method=methods[0] if len(methods) == 1 else methods or None, named=named_paths(), **options
    )
    with progress_bar("audit") as progress:
        found = audit(opening_of(model, **opening), data, output, asked, progress=progress)
    if found.taken_over:  # whoever prepared the folder may have written them
        say(
            f"{found.taken_over} of {len(found.rows)} photos are those of an interrupted run that "
            f"{output} held; --fresh audits them anew",
            "note",
        )
    for text in found.contents["warnings"]:
        say(text, "warning")
    refused = found.contents["data"]["refused"]
    for one in refused[:_SHOWN]:
        say(f"{one['photo']}: {one['reason']}")
    if len(refused) > _SHOWN:
        say(f"{len(refused) - _SHOWN} more photos were refused; the report names them")
    if as_json:
        show_json(plain(found.document()), indent=2)
    else:
        _print(found, f"{shown.rstrip('/')}/report.html" if shown else str(output / "report.html"))
    if found.passed is False:
        for reason in found.contents["verdict"]["reasons"]:
            say(f"gate failed: {reason}")
        return GATE_FAILED
    return ImageRefused.exit_status if refused else 0


def _recheck(context: click.Context, path: Path) -> None:
    """End the command with what a second look at a report says."""
    from inspector.cli.supervise import CHECK_SECONDS

    # What the command names is what its work may read.
    context.params["recheck"] = path if path.is_dir() else path.absolute().parent
    status = supervised(lambda: _rechecked(path), timeout=CHECK_SECONDS, memory=None, device="cpu")
    context.exit(status)


def _rechecked(path: Path) -> int:
    from inspector.audit.report.recheck import recheck

    found = recheck(path)
    for check in found:
        show(f"{'agrees ' if check.agrees else 'DIFFERS'} {check.name}")
        if check.text:
            show(f"        {check.text}")
    wrong = sum(not check.agrees for check in found)
    show(f"{len(found) - wrong} of {len(found)} agree")
    return GATE_FAILED if wrong else 0


def _print(found: "AuditReport", page: str) -> None:
    """The verdict, the numbers that matter, the findings, and where the page is."""
    contents = found.contents
    show(contents["verdict"]["sentence"])
    summary, data = contents["summary"], contents["data"]
    show(f"{data['audited']} of {data['photos']} photos, {contents['task']['name']}")
    for name in ("top1", "inside_box", "box_area", "pointing", "pointing_centre", "border"):
        if (own := summary[name]) is not None:
            shown = f"{own['value']:.3f} ({own['low']:.3f} to {own['high']:.3f})"
            show(f"  {name.replace('_', ' ')}: {shown}, {own['photos']} photos")
    if contents["calibration"] is not None:
        show(f"  calibration error: {contents['calibration']['error']:.3f}")
    for kind, own in (contents["faithfulness"] or {}).items():
        shown = ", ".join(f"{name} {stat['value']:.3f}" for name, stat in own.items())
        show(f"  {kind}: {shown}")
    if (compare := contents["compare"]) is not None:
        model = contents["model"]["model"]["name"]
        show(f"{model} (B) and {compare['reference']['name']} (A): {compare['sentence']}")
    if contents["lock"] is not None:
        show(contents["lock"]["sentence"])
        for one in contents["lock"]["entries"][:_SHOWN]:
            where = "" if one["photo"] is None else f"{one['photo']}, "
            by = "not comparable" if one["difference"] is None else f"{one['difference']:.3g}"
            show(f"  {where}{one['name']}: {by}, beyond {one['band']:.2g}")
    for one in contents["findings"]:
        proof = {True: "confirmed", False: "not confirmed", None: "not tested"}[one["confirmed"]]
        show(f"{one['id']} {one['level']} ({proof}): {one['sentence']}")
    if not contents["findings"]:
        show("no findings")
    show(page)
