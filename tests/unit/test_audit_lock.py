"""The lock of an audit, and its comparison with another model."""

import json
import shutil
from pathlib import Path

import audit_scenes as scenes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from inspector.audit.data_set import open_data_set
from inspector.audit.gates import Names, parse
from inspector.audit.lock import read_lock
from inspector.audit.lock.golden import fingerprint, map_error
from inspector.audit.run import AuditOptions, audit
from inspector.errors import UsageError
from inspector.opening import Opening

SETTINGS = ("mean=0", "std=1")
QUICK = {"workers": 1, "thumbnails": False, "fresh": True}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A cheating network, one like it up to rounding, and one that lost a tenth; few photos."""
    place = tmp_path_factory.mktemp("lock")
    scenes.saved(place, cheats=True)
    scenes.saved(place, cheats=False)
    scenes.folder(place / "all")
    few = sorted((place / "all").rglob("*.png"))[::12]
    for path in few:
        target = place / "data" / path.relative_to(place / "all")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for name, factor in (("rounded", 1 + 2.0**-23), ("tenth", 0.9)):
        model = onnx.load_model(place / "cheating.onnx")
        first = next(t for t in model.graph.initializer if numpy_helper.to_array(t).ndim == 4)
        weights = numpy_helper.to_array(first) * np.float32(factor)
        first.CopyFrom(numpy_helper.from_array(weights.astype(np.float32), first.name))
        onnx.save(model, place / f"{name}.onnx")
    return place


def run(scene, name="cheating", **options):
    opening = Opening(scene / f"{name}.onnx", overrides=SETTINGS)
    return audit(opening, scene / "data", scene / "out", AuditOptions(**QUICK, **options))


@pytest.fixture(scope="module")
def lock(scene):
    run(scene, lock=scene / "audit.lock")
    return scene / "audit.lock"


def test_a_lock_is_small_and_says_what_it_holds(scene, lock):
    assert lock.stat().st_size < 64_000
    found = json.loads(lock.read_text())
    assert found["schema"] == 1
    assert found["model"]["name"] == "cheating.onnx"
    assert found["data"]["fingerprint"] == fingerprint(open_data_set(scene / "data").entries)
    assert 1 <= len(found["golden"]) <= 8
    assert min(found["noise"]["outputs"].values()) >= 1e-6
    assert "seconds" not in found["numbers"]
    run(scene, lock=scene / "again.lock")
    assert (scene / "again.lock").read_text() == lock.read_text()


@pytest.mark.parametrize(
    ("name", "moved"), [("cheating", False), ("rounded", False), ("tenth", True)]
)
def test_what_moved_is_said_and_fails_the_audit(scene, lock, name, moved):
    report = run(scene, name, against=lock)
    found = report.contents["lock"]
    assert found["model"]["same_file"] == (name == "cheating")
    assert (found["moved"] > 0) == moved
    assert found["moved"] == found["outputs"] + found["maps"] + found["numbers"]
    assert report.passed is not moved
    (threshold,) = report.contents["thresholds"]
    assert threshold["fail_if"] == "lock.moved > 0"
    assert threshold["source"] == "audit.lock"
    if moved:
        assert found["outputs"] > 0
        assert "outputs" in found["sentence"]
        assert all(e["difference"] is None or e["difference"] > e["band"] for e in found["entries"])


def test_a_gate_on_the_lock_takes_the_place_of_the_default(scene, lock):
    report = run(scene, "tenth", against=lock, fail_if=("lock.moved > 1000",))
    assert [row["fail_if"] for row in report.contents["thresholds"]] == ["lock.moved > 1000"]
    assert report.passed is True
    with pytest.raises(UsageError, match="against no lock"):
        run(scene, fail_if=("lock.moved > 0",))
    with pytest.raises(UsageError, match="both checked against and written"):
        run(scene, against=lock, lock=lock)


def changed(lock, path, **changes):
    """A lock in which values are replaced; keys lead into tables by two underscores."""
    found = json.loads(lock.read_text())
    for key, value in changes.items():
        *tables, name = key.split("__")
        table = found
        for one in tables:
            table = table[int(one) if one.isdecimal() else one]
        table[name] = value
    path.write_text(json.dumps(found))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model__outputs": ["boxes"]}, r"another model: its outputs is \[\"boxes\"\]"),
        ({"model__input": [1, 32, 32]}, "another model: its input"),
        ({"model__classes": 1000}, "another model: its classes is 1000"),
        ({"request__method": "rise"}, "another request: its method"),
        ({"data__fingerprint": "0" * 64}, "another data set"),
        ({"schema": 2}, "a lock of version 2"),
        ({"schema": True}, "a lock of version true"),
        ({"schema": None}, "'schema' is missing"),
        ({"schema": [[[]]]}, "a lock of version"),
        ({"golden": []}, "'golden' is not a list"),
        ({"golden": [1] * 9}, "'golden' is not a list"),
        ({"golden": [1]}, "a golden photo has no name"),
        ({"golden__0__map": "zz"}, "a map that is not one"),
        ({"golden__0__map": "00"}, "a map that is not one"),
        ({"golden__0__outputs": {"y": 1}}, "an output 'y' that is not one"),
        ({"golden__0__outputs": None}, "has no outputs"),
        ({"noise__map": -1}, "bands that are not positive"),
        ({"noise__outputs": {"y": "1"}}, "bands that are not positive"),
        ({"numbers": {"top1": {"value": "1", "photos": 2}}}, "'top1' is unknown"),
        ({"numbers": {"other": {"value": 1, "photos": 2}}}, "'other' is unknown"),
        ({"model": []}, "'model' is missing"),
    ],
)
def test_a_lock_that_does_not_fit_is_refused_before_any_photo(scene, lock, tmp_path, changes, said):
    bad = changed(lock, tmp_path / "bad.lock", **changes)
    with pytest.raises(UsageError, match=said) as no:
        run(scene, against=bad)
    assert str(bad) in no.value.where


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a lock"),
        ("[]", "not an object"),
        ("{}", "'schema' is missing"),
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
        ('{"schema": NaN}', "NaN"),
        ('{"schema": 1e999}', "is not a lock"),
        ("{" + '"a":' + "1" * 9999 + "}", "digits"),
        ("\udcff", "is not a lock"),
    ],
)
def test_what_is_no_lock_is_refused(tmp_path, text, said):
    path = tmp_path / "audit.lock"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=said):
        read_lock(path)
    with path.open("wb") as stream:
        stream.truncate(5 << 20)
    with pytest.raises(UsageError, match="MiB"):
        read_lock(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_lock(tmp_path)


def test_fingerprints_are_of_contents_and_labels(scene, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(scene / "data", tmp_path / name)
    first, second = (fingerprint(open_data_set(tmp_path / n).entries) for n in ("one", "two"))
    assert first == second == fingerprint(open_data_set(scene / "data").entries)
    photo = next((tmp_path / "two").rglob("*.png"))
    shutil.copy(photo, photo.with_name("copy.png"))
    assert fingerprint(open_data_set(tmp_path / "two").entries) != first


def test_errors_of_small_maps():
    one = bytes([255] * 256).hex()
    assert map_error(one, one) == 0
    assert map_error(one, "") == 1
    assert map_error("", one) == 16
    assert map_error(one, "00") is None
    assert map_error(one, "x" * 512) is None


# -- the reference ---------------------------------------------------------------------------------


def test_a_reference_gives_numbers_that_gates_speak_of(scene):
    gates = (
        "compare.moved > 0",
        "compare.sqnr.low < 30",
        "compare.flip_rate.high > 0.9",
        "compare.layers_apart > 5",
    )
    report = run(scene, "tenth", reference=scene / "cheating.onnx", fail_if=gates)
    found = report.contents["compare"]
    assert found["reference"]["name"] == "cheating.onnx"
    assert found["moved"] == 1
    assert found["sentence"].startswith("B differs from A beyond float32 noise")
    assert [row["failed"] for row in report.contents["thresholds"]] == [True, True, False, False]
    assert found["sqnr"]["low"] <= found["sqnr"]["value"] <= found["sqnr"]["high"]
    (name,) = found["output"]
    gate = parse(
        f"compare.output.{name}.cosine.low < 2e-1", Names(compare=("sqnr",), outputs=[name])
    )
    assert gate.evaluate(report.contents).failed is False
    same = run(scene, "rounded", reference=scene / "cheating.onnx")
    assert same.contents["compare"]["moved"] == 0


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("compare.sqnrr > 1", "nearest: sqnr"),
        ("compare.output.x.sqnr > 1", "no output that is compared 'x'"),
        ("compare.output.y.blur > 1", "there is no 'blur'"),
        ("compare.output.y > 1", "not a number by itself"),
        ("compare.flip_rate > 2", "can never fail"),
        ("compare.cosine < -2", "can never fail"),
        ("lock.move > 0", "nearest: moved"),
        ("lock > 0", "not a number by itself"),
    ],
)
def test_names_of_the_comparison_and_the_lock_are_looked_up(gate, said):
    names = Names(compare=("sqnr", "flip_rate", "cosine"), outputs=("y",), lock=True)
    with pytest.raises(UsageError, match=said):
        parse(gate, names)


def test_a_reference_that_does_not_fit_is_refused_before_any_photo(scene, tmp_path):
    samples = Path(__file__).resolve().parents[2] / "sample_models"
    with pytest.raises(UsageError, match="not two networks of one task: 10 classes against 2"):
        run(scene, reference=samples / "zfnet.onnx")
    grey = onnx.load_model(scene / "cheating.onnx")
    weights = next(t for t in grey.graph.initializer if numpy_helper.to_array(t).ndim == 4)
    name = weights.name
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights)[:, :1].copy(), name))
    grey.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(grey, tmp_path / "grey.onnx")
    with pytest.raises(UsageError, match="different inputs: 1 channels against 3"):
        run(scene, reference=tmp_path / "grey.onnx")
    with pytest.raises(UsageError, match="compares with no other model"):
        run(scene, fail_if=("compare.sqnr < 1",))
