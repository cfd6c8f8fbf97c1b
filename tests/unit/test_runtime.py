"""ONNX Runtime sessions: any tensor, any type, one session, and errors of this package."""

import os
import subprocess
import sys
import tracemalloc
import types
import warnings

import ml_dtypes
import numpy as np
import onnx
import pytest
from networks import node, onnx_model
from onnx import TensorProto, helper, numpy_helper

import inspector
from converters import onnx_file
from inspector.engines.runtime import Runtime, threads_asked_for, working_providers
from inspector.errors import BrokenInstallation, InspectorWarning, ModelRefused, UsageError

KINDS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def network(batch="n", kind=TensorProto.FLOAT, *, reshape=None):
    """conv - relu - mean - linear; ``reshape`` bakes a batch size in."""
    rng = np.random.default_rng(0)
    dtype = KINDS[kind]
    constants = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(dtype),
        "h": rng.standard_normal((4, 5)).astype(dtype),
        "shape": np.array([reshape or 0, -1], np.int64),
    }
    nodes = [
        node("Conv", "x w", "c"),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "m"),
        node("Reshape", "m shape", "f"),
        node("MatMul", "f h", "y"),
    ]
    return onnx_model(
        nodes,
        [helper.make_tensor_value_info("x", kind, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", kind, [batch, 5])],
        constants,
        opset=17,
    )


@pytest.fixture
def saved(tmp_path):
    def save(proto, name="model.onnx", **options):
        path = tmp_path / name
        onnx.save(proto, path, **options)
        return path

    return save


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)


def literal(proto, x):
    """c, r and y of the network in loops, float64."""
    w, h = (numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer[:2])
    c = np.zeros((len(x), 4, 6, 6))
    for n, k, i, j in np.ndindex(*c.shape):
        c[n, k, i, j] = (w[k] * x[n, :, i : i + 3, j : j + 3]).sum()
    r = np.maximum(c, 0)
    return {"c": c, "r": r, "y": r.mean(axis=(2, 3)) @ h}


def same(found, wanted, tolerance=1e-5):
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("optimise", [True, False])
def test_any_tensor_is_an_output(saved, optimise):
    proto, x = network(), images(2)
    runtime = Runtime(onnx_file.read(saved(proto)), device="cpu", optimise=optimise)
    wanted = literal(proto, x)
    found = runtime.run({"x": x}, ["y", "c", "r", "x"])
    assert list(found) == ["y", "c", "r", "x"]
    for name, value in wanted.items():
        same(found[name], value)
    np.testing.assert_array_equal(found["x"], x)


def test_the_session_is_kept_and_widened_once(saved):
    runtime = Runtime(onnx_file.read(saved(network())), device="cpu")
    x = images(1)
    runtime.run({"x": x}, ["y"])
    first = runtime._session
    runtime.run({"x": x}, ["y"])
    assert runtime._session is first
    runtime.run({"x": x}, ["r"])
    second = runtime._session
    assert second is not first
    for fetch in (["r"], ["y"], ["y", "r"], []):
        runtime.run({"x": x}, fetch)
        assert runtime._session is second
    assert runtime.provider == "CPUExecutionProvider"
    assert runtime._session is second


def test_exposing_does_not_change_the_results_beyond_float_noise(saved):
    path = saved(network())
    x = images(3)
    plain = Runtime(onnx_file.read(path), device="cpu").run({"x": x}, ["y"])["y"]
    wide = Runtime(onnx_file.read(path), device="cpu").run({"x": x}, ["y", "c", "r", "m", "f"])
    same(wide["y"], plain, 1e-6)


def test_float16_inputs_are_cast_and_results_widened(saved):
    proto, x = network(kind=TensorProto.FLOAT16), images(1)
    found = Runtime(onnx_file.read(saved(proto)), device="cpu").run({"x": x}, ["y", "r"])
    wanted = literal(proto, x)
    for name in ("y", "r"):
        assert found[name].dtype == np.float32
        same(found[name], wanted[name], 5e-3)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.UINT8, np.uint8),
        (TensorProto.INT64, np.int64),
    ],
)
def test_other_types_are_cast_to_what_the_graph_declares(saved, kind, dtype):
    proto = onnx_model(
        [node("Identity", "x", "y")],
        [helper.make_tensor_value_info("x", kind, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", kind, [1, 3, 8, 8])],
        opset=17,
    )
    x = np.arange(192, dtype=np.float32).reshape(1, 3, 8, 8)
    found = Runtime(onnx_file.read(saved(proto)), device="cpu").run({"x": x}, ["y"])["y"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, x)


def test_bfloat16_is_widened(saved):
    proto = onnx_model(
        [node("Cast", "x", "b", to=TensorProto.BFLOAT16), node("Cast", "b", "y", to=1)],
        {"x": [1, 3, 8, 8]},
        {"y": [1, 3, 8, 8]},
        opset=17,
    )
    x = images(1)
    found = Runtime(onnx_file.read(saved(proto)), device="cpu").run({"x": x}, ["y"])["y"]
    np.testing.assert_array_equal(found, x.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_external_data_is_found_beside_the_model(saved, tmp_path, monkeypatch):
    proto, x = network(), images(1)
    wanted = literal(proto, x)["y"]
    path = saved(proto, save_as_external_data=True, location="weights.bin", size_threshold=64)
    assert (tmp_path / "weights.bin").stat().st_size > 0
    monkeypatch.chdir("/")  # not found by way of the working folder
    file = onnx_file.read(path)
    for _ in range(2):
        same(Runtime(file, device="cpu").run({"x": x}, ["y", "c"])["y"], wanted)


# -- batches ---------------------------------------------------------------------------------------


def recipe():
    return inspector.Preprocess(size=(8, 8))


@pytest.mark.parametrize("batch", ["n", 1, 4])
@pytest.mark.parametrize("count", [1, 3])
def test_batches_free_and_fixed(saved, batch, count):
    proto, x = network(batch), images(count)
    model = inspector.load(saved(proto), device="cpu", preprocess=recipe())
    assert model.batches == (batch == "n")
    found = model.forward(x, ["y", "r"])
    wanted = literal(proto, x)
    same(found["y"], wanted["y"])
    same(found["r"], wanted["r"])


def test_a_batch_declared_free_that_a_reshape_fixes(saved):
    proto, x = network(reshape=1), images(3)
    model = inspector.load(saved(proto), device="cpu", preprocess=recipe())
    found = model.forward(x, ["y", "r"])
    wanted = literal(proto, x)
    same(found["y"], wanted["y"])
    same(found["r"], wanted["r"])
    assert not model.batches


def test_photos_are_explained_whatever_the_batch(saved):
    rng = np.random.default_rng(5)
    photos = [rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(3)]
    maps = []
    for name, proto in (
        ("free", network()),
        ("one", network(1)),
        ("four", network(4)),
        ("baked", network(reshape=1)),
    ):
        model = inspector.load(saved(proto, f"{name}.onnx"), device="cpu", preprocess=recipe())
        report = model.explain(photos, ["grad-cam", "gradient"], target="2")
        maps.append([e.attribution.values for e in report.explanations])
        assert len(maps[-1]) == 6
    for other in maps[1:]:
        for a, b in zip(maps[0], other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * max(np.abs(a).max(), 1e-6))


# -- devices and refusals --------------------------------------------------------------------------


def test_a_device_that_does_not_exist_is_refused(saved):
    with pytest.raises(UsageError, match="no such device"):
        Runtime(onnx_file.read(saved(network())), device="tpu")


def test_asking_for_cuda_without_it_is_said(saved):
    if working_providers().get("CUDAExecutionProvider"):
        pytest.skip("this machine has a working CUDA device")
    runtime = Runtime(onnx_file.read(saved(network())), device="cuda")
    with pytest.warns(InspectorWarning, match="CUDA was asked for, but CPUExecutionProvider runs"):
        runtime.run({"x": images(1)}, ["y"])
    assert runtime.provider == "CPUExecutionProvider"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Runtime(onnx_file.read(saved(network(), "b.onnx")), device="auto").run(
            {"x": images(1)}, ["y"]
        )


def test_a_model_that_will_not_load_or_run_is_refused_by_name(saved):
    broken = network()
    broken.graph.node[3].op_type = "MatMul"  # (n, 4, 1, 1) by int64
    runtime = Runtime(onnx_file.read(saved(broken, "broken.onnx")), device="cpu")
    with pytest.raises(ModelRefused, match=r"broken\.onnx: ONNX Runtime refused"):
        runtime.run({"x": images(1)}, ["y"])
    runtime = Runtime(onnx_file.read(saved(network(), "fine.onnx")), device="cpu")
    with pytest.raises(ModelRefused, match=r"fine\.onnx") as caught:
        runtime.run({"x": np.zeros((1, 7, 8, 8), np.float32)}, ["y"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "threads"),
    [("1", 1), (" 3 ", 3), ("4,2", 4), ("", 0), ("0", 0), ("-2", 0), ("all", 0), ("9999", 1024)],
)
def test_the_variable_of_openmp_bounds_the_threads(saved, monkeypatch, said, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads_asked_for() == threads
    if threads > 4:
        return  # a session would begin them all, and they would take the machine from all others
    runtime = Runtime(onnx_file.read(saved(network(), "m.onnx")), device="cpu")
    assert runtime._session_for(()).get_session_options().intra_op_num_threads == threads
    runtime = Runtime(onnx_file.read(saved(network(), "m.onnx")), device="cpu", threads=2)
    assert runtime._session_for(()).get_session_options().intra_op_num_threads == 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no process is bound to cores")
def test_a_process_bound_to_some_cores_has_no_more_threads(saved, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    file = onnx_file.read(saved(network(), "m.onnx"))
    for bound, threads in (({3}, 1), ({0, 5}, 2), (set(range(8)), 0)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, bound=bound: bound)
        session = Runtime(file, device="cpu")._session_for(())
        assert session.get_session_options().intra_op_num_threads == threads


def in_a_process(script, *arguments):
    """Run a script in a fresh interpreter."""
    return subprocess.run(  # noqa: S603 - this interpreter, and a script from this file
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


LOUD = """
import pathlib, sys, warnings
import numpy as np
from converters import onnx_file
from inspector.errors import ModelRefused
from inspector.engines.runtime import Runtime, working_providers

warnings.simplefilter("ignore")
working_providers()
good, bad = (onnx_file.read(pathlib.Path(path)) for path in sys.argv[1:])
x = np.zeros((1, 3, 8, 8), np.float32)
Runtime(good, device="cuda").run({"x": x}, ["y", "r"])
try:
    Runtime(bad).run({"x": x}, ["y"])
except ModelRefused:
    print("refused")
"""


def test_nothing_but_the_result_reaches_the_terminal(saved):
    """What ONNX Runtime has to say about a device or a bad model stays inside."""
    broken = network()
    broken.graph.node[3].op_type = "MatMul"
    done = in_a_process(LOUD, saved(network()), saved(broken, "broken.onnx"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "refused\n"
    assert done.stderr == ""


TORCHLESS = """
import sys
import types
import numpy as np
import inspector

model = inspector.load(sys.argv[1], device="cpu", preprocess="unit")
model.explain(np.zeros((8, 8, 3), np.uint8), ["cam", "occlusion:window=4"], target="1")
assert "torch" not in sys.modules
"""


def test_no_torch_for_a_forward_pass(saved):
    done = in_a_process(TORCHLESS, saved(network()))
    assert done.returncode == 0, done.stderr


def test_a_runtime_without_its_files_is_no_internal_error(saved, monkeypatch):
    """What is left of the folder when one of two distributions was uninstalled can be imported."""
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    runtime = Runtime(onnx_file.read(saved(network())), device="cpu")
    with pytest.raises(BrokenInstallation, match="does not start") as raised:
        runtime.run({"x": np.zeros((1, 3, 8, 8), np.float32)}, ["y"])
    assert "inspector doctor" in raised.value.hint


def test_a_loaded_model_keeps_no_serialised_copy_of_its_weights(saved):
    weights = np.random.default_rng(0).standard_normal((1 << 21, 5)).astype(np.float32)
    feed = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", len(weights)])]
    result = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])]
    made = onnx_model([node("MatMul", "x h", "y")], feed, result, {"h": weights}, opset=17)
    file = onnx_file.read(saved(made))
    runtime = Runtime(file)
    tracemalloc.start()
    try:
        runtime.prepare(["y"])
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most > weights.nbytes  # what would be kept is seen
    assert kept < weights.nbytes / 10


def test_a_sealed_model_lets_go_of_its_protobuf_and_runs_on(saved):
    file = onnx_file.read(saved(network()))
    plain, sealed = Runtime(file), Runtime(file, sealed=True)
    for seed in (0, 1):
        feed = {"x": images(2, seed)}
        assert np.array_equal(sealed.run(feed, ["y"])["y"], plain.run(feed, ["y"])["y"])
    assert not sealed.file.model.ByteSize()
    assert file.model.ByteSize()
