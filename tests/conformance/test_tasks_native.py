"""Models of every task: the default map of the export against the native network's own autograd.

Layer and target are whatever ``explain`` takes with no option.  In the native network they are the
tensors of equal values, among all that its functions return; gradient and map are then taken there.
"""

import numpy as np
import pytest
import torch
from task_networks import NETWORKS, export
from torch.overrides import TorchFunctionMode

import inspector
from inspector.run import ExplainRun

pytestmark = [pytest.mark.conformance, pytest.mark.timeout(900)]

CLOSE = 1e-4
"""Of the largest sum of |g A| over the channels of a place."""

SAME = 1e-3
"""Largest difference of one tensor in both, of its peak."""


class Recorded(TorchFunctionMode):
    """Every floating point tensor that a function returns."""

    def __init__(self):
        super().__init__()
        self.tensors = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        several = found if isinstance(found, tuple | list) else (found,)
        self.tensors += [
            t for t in several if isinstance(t, torch.Tensor) and t.is_floating_point()
        ]
        return found

    def like(self, value):
        """The recorded tensor with these values, batch axis or not; of equal ones the last."""
        wanted = torch.from_numpy(np.array(value, np.float32))
        peak, best, least = float(wanted.abs().max()), None, SAME
        for tensor in self.tensors:
            fits = tensor.shape in {wanted.shape, wanted.shape[1:]} and tensor.requires_grad
            if fits:
                apart = float((tensor.detach().reshape(wanted.shape) - wanted).abs().max()) / peak
                best, least = (tensor, apart) if apart <= least else (best, least)
        return best


@pytest.fixture(scope="module", params=NETWORKS)
def case(request, exports):
    native = NETWORKS[request.param]()
    path = export(native, exports / f"task_{native.name}.onnx")
    model = inspector.load(
        path, device="cpu", preprocess="unit", overrides=("resize=squash",), unverified=True
    )
    return native, model


def native_number(target, tensor):
    """The number that is explained, in the native tensor: an element, a region's sum, a cosine."""
    values = tensor[None] if tensor.ndim == len(target.index) else tensor  # lists have no batch
    if hasattr(target, "reference"):
        reference = torch.from_numpy(np.asarray(target.reference, np.float32))
        return torch.nn.functional.cosine_similarity(values.reshape(1, -1), reference[None])[0]
    found = values[(0, *target.index)]
    if getattr(target, "mask", None) is not None:
        return (found * torch.from_numpy(np.asarray(target.mask, np.float32))).sum()
    return found.sum()


def test_the_task_is_named_and_the_default_map_is_the_native_network_s(case):
    native, model = case
    assert model.meaning.startswith(native.task), model.meaning
    more = {}
    if native.task == "embedding":
        pixels = (native.x[0].permute(1, 2, 0).numpy()[::-1] * 255).astype(np.uint8)
        more = {"similar_to": pixels}
    x = native.x.numpy()
    run = ExplainRun(model, None, None, None, None, **more)
    values = run.forward(x)
    targets = run.targets(values, 1)
    maps = [one.attribution for one in run.maps(x, values, targets)[0]]
    assert maps
    drawn = 0
    for target, found in zip(targets[0], maps, strict=True):
        recorded = Recorded()
        with recorded:
            native.network(native.x[0] if native.ranked else native.x)
        fetched = model.forward(x, [found.layer, target.tensor])
        A, scores = (recorded.like(fetched[name]) for name in (found.layer, target.tensor))
        assert A is not None, found.layer
        assert scores is not None, target.tensor
        score = native_number(target, scores)
        (g,) = torch.autograd.grad(score, A)
        weights = g
        if found.method == "grad-cam":
            weights = g.mean((2, 3) if A.ndim == 4 else 1, keepdim=True)
        else:
            assert found.method == "hires-cam"
        product = (weights * A).detach()
        wanted = (
            product.sum(1 if A.ndim == 4 else 2).clamp(min=0).numpy().reshape(found.values.shape)
        )
        peak = wanted.max()
        terms = float(product.abs().sum(1 if A.ndim == 4 else 2).max())  # what is added up
        assert found.score == pytest.approx(float(score.detach()), rel=1e-4, abs=1e-5)
        np.testing.assert_allclose(found.values, wanted, rtol=0, atol=CLOSE * max(terms, 1e-6))
        drawn += peak > 0
    assert drawn
    if native.name == "segformer":  # what the head projects of the deepest stage
        assert maps[0].layer.endswith("stages.3/layer_norm/LayerNormalization_output_0")
    if native.name == "deeplabv3_resnet50":  # not the class scores themselves
        assert maps[0].layer.endswith("Relu_output_0")
