"""``inspector verify``: the parity certificate."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inspector.cli.options import Command, OutputFile, model_options, open_model, supervised
from inspector.cli.streams import progress_bar, show, show_json
from inspector.printable import clean_text

if TYPE_CHECKING:
    from inspector.explain import Explainer
    from inspector.verify import Certificate
    from inspector.verify.subject import Probe

FAILED = 1

_COLOURS = {"pass": "green", "fail": "red", "undecided": "yellow", "limited": "yellow"}


@click.command("verify", cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", metavar="[IMAGE]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--target",
    metavar="T",
    default="",
    help="Whose gradient to check: top1, a class index, a label, or OUTPUT[i,j,...].  "
    "[default: top1; a model that is not a classifier: the largest score that it "
    "holds, else an output's largest element]",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=OutputFile(),
    help="Write the certificate as a JSON document.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the document on standard output, and nothing else.",
)
@model_options
def command(**options: Any) -> int:
    """Certify that the PyTorch twin of MODEL is the model, in values and in gradients.

    Every tensor against ONNX Runtime, on random inputs and on each IMAGE; the gradient against
    differences of ONNX Runtime's scores; identities that must hold whatever the model. Of a file
    that `inspector embed` wrote also its heatmap, against the twin's, and its other outputs. Exit
    status 1 when a check fails.
    """
    limits = {name: options.pop(name) for name in ("timeout", "memory")}
    return supervised(lambda: _verify(**options), device=options["device"], **limits)


def _verify(
    *,
    model: Path,
    images: Sequence[Path],
    target: str,
    output: Path | None,
    as_json: bool,
    **opening: Any,
) -> int:
    from inspector.embed import base_of, checks_of
    from inspector.engines import require_torch
    from inspector.render import json as render_json
    from inspector.verify.cache import remember

    require_torch()
    from inspector.verify.checks import certify
    from inspector.verify.graph_gradient import remember_graph

    explainer = open_model(model, **opening)
    heatmap = base_of(explainer)
    of_heatmap = [] if heatmap is None else checks_of(explainer, *heatmap)
    if heatmap is not None:  # the twin is that of the model, without what was added
        explainer = heatmap[0]
    preprocess = explainer.preprocessing.preprocess
    chosen = _target(explainer, target)  # read before anything is computed
    with progress_bar(explainer.path.name) as progress:
        certificate = certify(
            explainer.model,
            _photos(explainer, images),
            preprocess=preprocess,
            target=chosen,
            progress=progress,
        )
    kept = remember(
        explainer.model, certificate, preprocess, "" if chosen is None else certificate.tensor
    )
    remember_graph(
        explainer.model, certificate, preprocess, "" if chosen is None else certificate.tensor
    )
    certificate = replace(certificate, checks=(*certificate.checks, *of_heatmap))
    document = certificate.to_dict()
    if output is not None:
        render_json.write(output, document)
    if as_json:
        show_json(render_json.plain(document), indent=2, sort_keys=True, allow_nan=False)
    else:
        _show(certificate, kept)
    return FAILED if certificate.verdict == "fail" else 0


def _photos(explainer: "Explainer", images: Sequence[Path]) -> "list[Probe]":
    from inspector.photos.photo_warnings import PhotoWarnings
    from inspector.verify.subject import Probe

    preprocess = explainer.preprocessing.preprocess
    warned = PhotoWarnings(preprocess.resize)
    found: list[Probe] = []
    for number, path in enumerate(images):
        photo = explainer.photo(path)
        tensor, geometry = preprocess.apply(photo)
        warned.add(photo, geometry)
        # Two photos of one name would be taken for one input.
        taken = {probe.name for probe in found} | {"noise", "blank"}
        name = photo.name if photo.name not in taken else f"{photo.name} ({number + 1})"
        found.append(Probe(name, tensor[None], {"sha256": photo.sha256}))
    warned.close()
    return found


def _target(explainer: "Explainer", text: str) -> Any:
    from inspector.errors import UsageError
    from inspector.target import TargetSpec, parse_target

    if not text or (text == "top1" and not explainer.scores.classifier):
        return None
    labels = explainer.class_labels.names
    TargetSpec.parse(text, scores=explainer.scores, labels=labels)

    def make(scores: Any) -> Any:
        found = parse_target(text, scores=explainer.scores, labels=labels, values=scores)
        if len(found) != 1:
            raise UsageError(f"{text!r} names several targets", hint="ask for one")
        return found[0]

    return make


def _show(certificate: "Certificate", kept: Path | None) -> None:
    """One line per check, and the verdict with what it leaves open."""
    width = max(len(check.name) for check in certificate.checks)
    name, target = clean_text(certificate.model["name"]), clean_text(certificate.target)
    inputs = ", ".join(clean_text(item["name"]) for item in certificate.inputs)
    show(f"{name}  sha256 {certificate.model['sha256'][:16]}...")
    show(f"judged as {certificate.kind}; inputs: {inputs}; target: {target}\n")
    for check in certificate.checks:
        word = (f"{check.status:14}", {"fg": _COLOURS.get(check.status)})
        show(word, f" {check.name:{width}}  {clean_text(check.text, limit=None)}")
    colour = {"fg": _COLOURS.get(certificate.verdict), "bold": True}
    show("\nverdict: ", (certificate.verdict.upper(), colour))
    for reason in certificate.reasons:
        show(f"  {clean_text(reason, limit=None)}")
    if kept is not None:
        said = {True: "passes", False: "fails", None: "undecided"}[certificate.kept.passed]
        show(
            f"\nkept for `explain`: {said} (photos do not count), in {kept}\n"
            "`inspector verify` judges anew; deleting the file lifts it"
        )
