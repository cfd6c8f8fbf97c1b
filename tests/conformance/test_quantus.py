"""Measures of faithfulness against Quantus, where the definitions agree.

Pixel flipping in steps of one pixel is our deletion; max-sensitivity is the same formula. Quantus's
sensitivity-n and infidelity correlate other things (several n at once, and no best factor), and its
ROAD counts right classes over a batch: these are held by algebra in ``tests/unit``.
"""

import warnings

import numpy as np
import pytest
import torch
from torchvision_loader import load_torchvision

from inspector.measures import faithfulness as measures
from inspector.measures import imputation

pytestmark = pytest.mark.conformance

SIDE = 8
RNG = np.random.default_rng(0)
IMAGE = RNG.uniform(0.2, 1, (1, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def quantus():
    load_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("quantus")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(SIDE * SIDE, 16), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(16, 3)).eval()


def score(network):
    def of(images):
        with torch.no_grad():
            return network(torch.from_numpy(images.astype(np.float32)))[:, 1].numpy()

    return of


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [0, 1])
def test_deletion_is_pixel_flipping(quantus, network, seed):
    heatmap = np.random.default_rng(seed).normal(size=(SIDE, SIDE)).astype(np.float32)
    metric = quantus.PixelFlipping(
        features_in_step=1,
        perturb_baseline=0.0,  # its "black" is the smallest value
        abs=False,
        normalise=False,
        disable_warnings=True,
    )
    (theirs,) = metric(
        model=network,
        x_batch=IMAGE[None],
        y_batch=np.array([1]),
        a_batch=heatmap[None, None],
        device="cpu",
        softmax=False,
    )
    black = imputation.constant(np.zeros(1))
    ours = measures.deletion(score(network), IMAGE, heatmap, black, steps=SIDE * SIDE)
    assert np.allclose(ours.scores[1:], theirs, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_max_sensitivity_is_the_same_on_the_same_noise(quantus, network):
    def explain(images):
        tensor = torch.from_numpy(images.astype(np.float32)).requires_grad_()
        network(tensor)[:, 1].sum().backward()
        return (tensor.grad * tensor).detach().numpy()[:, 0]

    radius, count, seed = 0.1, 6, 5
    drawn = np.random.default_rng(seed).uniform(-radius, radius, (count, *IMAGE.shape))
    noise = iter(drawn.astype(np.float32).reshape(count, 1, -1))
    metric = quantus.MaxSensitivity(
        nr_samples=count,
        perturb_func=lambda arr, **_: arr + next(noise),
        abs=False,
        normalise=False,
        disable_warnings=True,
    )
    (theirs,) = metric(
        model=network,
        x_batch=IMAGE[None],
        y_batch=np.array([1]),
        a_batch=explain(IMAGE[None])[:, None],
        explain_func=lambda inputs, **_: explain(np.asarray(inputs))[:, None],
        device="cpu",
        softmax=False,
    )
    ours = measures.max_sensitivity(explain, IMAGE, radius=radius, count=count, seed=seed)
    assert ours == pytest.approx(float(theirs), rel=1e-4)
