"""A module becomes a file that computes the same, names no machine, and is whole or not there."""

import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from converters.errors import ConversionFailed
from converters.source import LABELS, PREPROCESS
from converters.to_onnx.pytorch.export import export_module

pytestmark = pytest.mark.conformance


def small(classes=4):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, bias=False),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, classes),
    )


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    module = small()
    module[1].running_mean.uniform_(-1, 1)
    module[1].running_var.uniform_(0.5, 2)
    certificate = export_module(
        module,
        torch.zeros(1, 3, 8, 8),
        folder / "small.onnx",
        labels=["ä", "b", "c", "d"],
        preprocess={"scale": 255.0, "size": [8, 8]},
        metadata={"author": "nobody"},
    )
    return module, certificate


def test_the_file_computes_what_the_module_computes(converted):
    module, certificate = converted
    runner = session(certificate.path)
    assert certificate.worst < 1e-6
    module.eval()
    for n in (1, 2, 7):
        x = torch.randn(n, 3, 8, 8)
        (got,) = runner.run(["logits"], {"input": x.numpy()})
        np.testing.assert_allclose(got, module(x).detach(), atol=1e-6)


def test_the_batch_axis_is_free_and_named(converted):
    runner = session(converted[1].path)
    assert runner.get_inputs()[0].shape == ["batch", 3, 8, 8]
    assert runner.get_outputs()[0].shape == ["batch", 4]


def test_labels_and_preprocessing_travel_in_the_metadata(converted):
    entries = session(converted[1].path).get_modelmeta().custom_metadata_map
    assert json.loads(entries[LABELS]) == ["ä", "b", "c", "d"]
    assert json.loads(entries[PREPROCESS]) == {"size": [8, 8], "scale": 255.0}
    assert entries["author"] == "nobody"


def test_nothing_of_this_machine_is_in_the_file(converted):
    content = converted[1].path.read_bytes()
    for trace in (rb"stack_trace", rb"fx_node", rb"site-packages", rb"\.py\b", rb"/\w+/\w+/\w+"):
        assert not re.search(trace, content), trace
    # Where a node comes from in the module is worth keeping.
    assert b"pkg.torch.onnx.name_scopes" in content


def test_weights_stand_in_the_one_file(converted):
    path = converted[1].path
    assert [entry.name for entry in path.parent.iterdir()] == ["small.onnx"]
    onnx.checker.check_model(path, full_check=True)


def test_same_module_same_bytes(tmp_path):
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    hashes = {export_module(small(), torch.zeros(2, 3, 8, 8), path).sha256 for path in paths}
    assert len(hashes) == 1
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_exporting_is_silent_and_leaves_the_module_as_it_was(tmp_path, capfd):
    module = small().train()
    module[3].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    export_module(module, torch.zeros(2, 3, 8, 8), tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")
    assert [part.training for part in module] == [True, True, True, False, True, True, True]
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


class Noisy(nn.Module):
    """Depends on chance."""

    def forward(self, x):
        return x + torch.rand_like(x)


class Counting(nn.Module):
    """Depends on what a Python object held while the module was traced."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(1)
        return x * len(self.seen)


class Branching(nn.Module):
    """Depends on its argument's value in a way that no graph records."""

    def forward(self, x):
        return x * 2 if float(x.sum()) > 0 else x


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Noisy(), "computes something else"),
        (Counting(), "computes something else"),
        (Branching(), "cannot export it"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_module_that_no_file_can_stand_for_is_refused(module, message, tmp_path, capfd):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"what was there before")
    with pytest.raises(ConversionFailed, match=message) as caught:
        export_module(module, torch.zeros(2, 3), path)
    assert caught.value.where == type(module).__name__
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]
    assert path.read_bytes() == b"what was there before"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "b"]}, "2 labels for 4 classes"),
        ({"preprocess": {"mena": [0.5]}}, "unknown preprocessing keys: mena"),
    ],
)
def test_labels_and_preprocessing_that_do_not_fit_are_refused(options, message, tmp_path):
    with pytest.raises(ConversionFailed, match=message):
        export_module(small(), torch.zeros(2, 3, 8, 8), tmp_path / "m.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_a_batch_size_written_into_the_module(tmp_path):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(2, 12)

    with pytest.raises(ConversionFailed, match="dynamic_batch=False"):
        export_module(Fixed(), torch.zeros(2, 3, 4), tmp_path / "m.onnx")
    certificate = export_module(
        Fixed(), torch.zeros(2, 3, 4), tmp_path / "m.onnx", dynamic_batch=False
    )
    assert certificate.batches == (2,)
    assert session(certificate.path).get_inputs()[0].shape == [2, 3, 4]


def test_several_arguments_and_results(tmp_path):
    class Two(nn.Module):
        def forward(self, x, index):
            return {"sum": x + index.to(x.dtype), "more": [x * 2]}

    certificate = export_module(
        Two(),
        (torch.zeros(2, 3), torch.tensor([[1], [7]])),
        tmp_path / "m.onnx",
        input_name=["x", "index"],
        output_name=["sum", "double"],
    )
    runner = session(certificate.path)
    x, index = np.ones((3, 3), np.float32), np.array([[1], [2], [3]])
    total, double = runner.run(["sum", "double"], {"x": x, "index": index})
    np.testing.assert_array_equal(total, x + index)
    np.testing.assert_array_equal(double, x * 2)


def test_the_operator_set_can_be_chosen(tmp_path):
    certificate = export_module(small(), torch.zeros(2, 3, 8, 8), tmp_path / "m.onnx", opset=21)
    assert certificate.opset == 21
    model = onnx.load(certificate.path)  # noqa: TID251 - this test made the file
    assert [entry.version for entry in model.opset_import if not entry.domain] == [21]


def test_weights_beyond_the_limit_stand_beside_the_file(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 64))
    path = tmp_path / "m.onnx"
    export_module(module, torch.zeros(2, 3, 8, 8), path, embed_limit=1000)
    assert {entry.name for entry in tmp_path.iterdir()} == {"m.onnx", "m.onnx.data"}
    assert path.stat().st_size < 64 * 192 * 4 <= (tmp_path / "m.onnx.data").stat().st_size
    x = torch.randn(3, 3, 8, 8)
    (got,) = session(path).run(None, {"input": x.numpy()})
    np.testing.assert_allclose(got, module(x).detach(), atol=1e-5)
