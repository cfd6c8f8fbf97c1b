"""What must hold on every run, whatever the model: cheap identities between methods.

CAM accounts for the logit          mean(M_c) + b_c = logit_c        (Zhou et al. 2016)
CAM = Z Grad-CAM before its ReLU    at the tensor that is pooled, where the head is linear
an occluder of size 0               changes no score
occlusion                           equals painting the square by hand
another target                      has another gradient
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from inspector.errors import ExplainedError
from inspector.evidence import Evidence, tensors_for
from inspector.methods import parse_request
from inspector.methods.grad_cam import weighted_map, weights
from inspector.methods.occlusion import occlusion
from inspector.network.classifier.head import LinearHead
from inspector.network.layer_choice import default_layer, layers_before
from inspector.network.space import plane
from inspector.photos.occluder import covered, fill_colour, inside_of, windows_of
from inspector.target import Target
from inspector.verify.certificate import Check
from inspector.verify.slopes import gradient_of
from inspector.verify.subject import SEED, Probe, Subject, noise

if TYPE_CHECKING:
    from inspector.photos.preprocess_choice import Preprocess

__all__ = ["RESIDUAL", "cam_checks", "mirror_check", "occlusion_checks", "other_target_check"]

Array = np.ndarray[Any, Any]

RESIDUAL = {"float32": 1e-4, "float16": 5e-3, "quantised": 0.05}
"""Largest residual of CAM over the scores' peak, by the kind of the model."""


def _evidence(
    subject: Subject,
    probe: Probe,
    target: Target,
    *,
    methods: Sequence[str],
    layer: str | None,
    preprocess: "Preprocess",
) -> Evidence:
    needs = {need for name in methods for need in parse_request(name).method.needs}
    fetch = list(tensors_for(subject.model, needs, layer, [target.tensor]))
    return Evidence(
        subject.model,
        probe.image,
        [target],
        subject.model.forward(probe.image, fetch),
        layer=layer,
        preprocess=preprocess,
    )


def cam_checks(
    subject: Subject, probe: Probe, target: Target, preprocess: "Preprocess"
) -> list[Check]:
    """CAM's residual, and CAM against Grad-CAM at the tensor that is pooled."""
    head = subject.model.head
    if not isinstance(head, LinearHead) or not target.terms:
        why = head.reason if not isinstance(head, LinearHead) else "the target is not a class"
        return [Check("cam residual", "not applicable", f"CAM is not exact here: {why}")]
    evidence = _evidence(
        subject,
        probe,
        target,
        methods=["cam", "grad-cam"],
        layer=head.features,
        preprocess=preprocess,
    )
    features = np.asarray(evidence.values[head.features][:1])
    map_ = head.cam_of(features, target.terms)
    scale = float(np.abs(evidence.values[target.tensor][0]).max()) or 1.0
    missed = head.residual_of(features, target.terms, evidence.scores)
    residual = float(missed[0]) / scale
    allowed = RESIDUAL[subject.kind]
    checks = [
        Check(
            "cam residual",
            "pass" if residual <= allowed else "fail",
            f"the map's mean and the bias miss the score by {residual:.1e} of its peak",
            {"residual": residual, "tolerance": allowed},
        )
    ]
    if head.channel_axis != 1:
        why = "the pooled tensor has its channels last"
        return [*checks, Check("cam = Z grad-cam", "not applicable", why)]
    gradient = evidence.gradient
    alpha = weights(gradient) * (gradient.shape[2] * gradient.shape[3])
    # The positive part of Grad-CAM is one of the map, and of its negative.
    ours = weighted_map(plane(features), alpha) - weighted_map(plane(features), -alpha)
    peak = float(np.abs(map_).max()) or 1.0
    apart = float(np.abs(ours - map_).max()) / peak
    return [
        *checks,
        Check(
            "cam = Z grad-cam",
            "pass" if apart <= allowed else "fail",
            f"largest difference {apart:.1e} of the map's peak",
            {"difference": apart, "tolerance": allowed},
        ),
    ]


def occlusion_checks(
    subject: Subject, probe: Probe, target: Target, preprocess: "Preprocess"
) -> list[Check]:
    """An occluder of no size, and the method against painting by hand at three places."""
    sizes = subject.model.input.sizes((probe.image.shape[2], probe.image.shape[3]))
    side = max(1, min(sizes) // 2)
    evidence = _evidence(
        subject, probe, target, methods=["occlusion"], layer=None, preprocess=preprocess
    )
    found = occlusion(evidence, window=side, stride=side, measure="score")[0, 0].reshape(sizes)
    colour = fill_colour(preprocess, "mean", probe.image[0])

    def score(box: tuple[int, ...]) -> float:
        own = probe.image[0].reshape(-1, *sizes)
        painted = covered(own, [box], colour).reshape(probe.image.shape)
        # The method's own session: how that one rounds is another check's business.
        values = subject.model.forward(painted, target.tensors)
        return float(np.sum(target.of({n: v[:1] for n, v in values.items()}), dtype=np.float64))

    boxes = list(windows_of(sizes, side, side))
    rng = np.random.default_rng(SEED + 4)
    chosen = [boxes[i] for i in sorted(rng.permutation(len(boxes))[:3])]
    untouched = score((0,) * 2 * len(sizes))
    whole = float(evidence.scores[0])
    values = np.abs(np.asarray(evidence.values[target.tensor][0], dtype=np.float64))
    peak = float(values.max(initial=0.0)) or 1.0
    still = abs(untouched - whole) / peak
    apart = max(
        abs(untouched - score(box) - float(found[inside_of(box)].mean())) / peak for box in chosen
    )
    allowed = {"float32": 1e-3, "float16": 2e-2, "quantised": 0.1}[subject.kind]
    return [
        Check(
            "occluder of size 0",
            "pass" if still <= allowed else "fail",
            f"the score moves by {still:.1e} of its peak",
            {"difference": still, "tolerance": allowed},
        ),
        Check(
            "occlusion by hand",
            "pass" if apart <= allowed else "fail",
            f"the method and the painted square differ by {apart:.1e} of the score's peak at "
            f"{len(chosen)} places",
            {"difference": apart, "tolerance": allowed, "places": [list(box) for box in chosen]},
        ),
    ]


def other_target_check(subject: Subject, probe: Probe, target: Target, gradient: Array) -> Check:
    """The gradient of another class must be another one."""
    name = "another target"
    values = subject.fetch(probe, target.tensor)
    if target.class_index is None or values.size < 2:
        return Check(name, "not applicable", "there is no second class to compare with")
    order = np.argsort(values.reshape(-1))[::-1]
    index = next(int(i) for i in order if int(i) != target.class_index)
    if float(values.reshape(-1)[index]) == float(values.max()):
        return Check(name, "not applicable", "the best two classes have the same score")
    place = tuple(int(i) for i in np.unravel_index(index, values.shape[1:]))
    other = Target(target.tensor, place, str(index), index)
    x = subject.feeds(probe)[subject.model.input.name].astype(np.float32)
    theirs = gradient_of(subject.engine, subject, x, other)
    norms = float(np.linalg.norm(gradient)) * float(np.linalg.norm(theirs))
    if not norms:
        return Check(name, "undecided", "one of the two gradients is zero everywhere")
    cosine = float(np.sum(gradient * theirs)) / norms
    same = bool(np.array_equal(gradient, theirs))
    return Check(
        name,
        "fail" if same else "pass",
        f"class {index} has {'the same gradient' if same else f'another one, cosine {cosine:.3f}'}",
        {"class": index, "cosine": cosine},
    )


def mirror_check(subject: Subject, probe: Probe, target: Target, preprocess: "Preprocess") -> Check:
    """How far Grad-CAM's map of the mirrored picture is the mirrored map.

    A network is mirror-symmetric by training at best, so nothing has to hold here; but a map that
    is constant or empty on every picture tried is not a map.
    """
    name = "mirrored image"
    more = (noise(subject.model, preprocess, seed=SEED + i, name="noise") for i in (300, 400))
    for item in (probe, *more):
        try:
            maps = [_grad_cam(subject, one, target, preprocess) for one in (item, _mirrored(item))]
        except ExplainedError as error:
            return Check(name, "not applicable", f"there is no Grad-CAM map ({error.what})")
        here, there = maps[0].reshape(-1), maps[1][..., ::-1].reshape(-1)
        if here.size < 2 or not here.std() or not there.std():
            continue
        correlation = float(np.corrcoef(here, there)[0, 1])
        return Check(
            name,
            "report",
            f"its map correlates by {correlation:.2f} with the mirrored map",
            {"correlation": correlation},
        )
    return Check(name, "undecided", "the map of Grad-CAM is constant or empty on every input tried")


def _mirrored(probe: Probe) -> Probe:
    return Probe("mirrored", np.ascontiguousarray(probe.image[..., ::-1]))


def _grad_cam(subject: Subject, probe: Probe, target: Target, preprocess: "Preprocess") -> Array:
    """The map of Grad-CAM at the default layer, (h, w)."""
    model = subject.model
    shapes = model.shapes((probe.image.shape[2], probe.image.shape[3]))
    found = layers_before(model.graph, model.layers, shapes, target.tensor)
    layer = found[-1] if found else default_layer(model.layers, shapes, model.input.space)[0]
    evidence = _evidence(
        subject, probe, target, methods=["grad-cam"], layer=layer.tensor, preprocess=preprocess
    )
    return np.asarray(weighted_map(evidence.activation, weights(evidence.gradient))[0])
