"""An audit on Ray, without Ray: what its actors do, and what is said where it cannot go on.

The real cluster is in tests/conformance/test_audit_ray.py.
"""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import audit_scenes as scenes
import pytest

from inspector.audit.data_set import Entry, open_data_set
from inspector.audit.engines import local, ray_data
from inspector.audit.rows import Asked, Auditor
from inspector.audit.run import AuditOptions, audit
from inspector.errors import InspectorError, MissingExtra, ModelRefused
from inspector.opening import Opening

SETTINGS = ("mean=0", "std=1")


@pytest.fixture
def ray(monkeypatch):
    """As much of Ray as an actor asks of it."""
    context = SimpleNamespace(get_node_id=lambda: "node")
    util = SimpleNamespace(get_node_ip_address=lambda: "192.0.2.7")
    fake = SimpleNamespace(get=lambda value: value, util=util)
    fake.get_runtime_context = lambda: context
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(ray_data, "_take_core", lambda number: None)
    return fake


@pytest.fixture
def scene(tmp_path, monkeypatch):
    scenes.saved(tmp_path, cheats=True)
    scenes.folder(tmp_path / "data", photos=6)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(name="cheating.onnx", **changes):
    return Asked(replace(Opening(name, overrides=SETTINGS), **changes))


def actor(request, entries, folder):
    counter = SimpleNamespace(next=SimpleNamespace(remote=lambda node: 0))
    return ray_data.AuditActor(request, [(8, tuple(entries))], str(folder), counter)


def test_an_actor_gives_the_rows_of_the_local_engine(ray, scene, monkeypatch):
    auditor = Auditor(asked())
    entries = open_data_set(scene / "data").entries[:4]
    monkeypatch.setattr(local.Processes, "batch", lambda self, own: list(auditor.rows(own)))
    made = actor(asked(), entries, scene)({"place": [0]})
    rows, wanted = json.loads(made["rows"][0]), list(auditor.rows(entries))
    for row in (*rows, *wanted):
        row.pop("seconds")
    assert (made["start"], made["error"], rows) == ([8], [""], wanted)


def test_a_worker_without_the_model_or_a_photo_is_named(ray, scene):
    entries = open_data_set(scene / "data").entries[:1]
    made = actor(asked("gone.onnx"), entries, scene)({"place": [0]})
    assert "has no model file" in made["error"][0]
    assert (made["node"], made["of_model"]) == (["192.0.2.7"], [True])
    made = actor(asked(), [Entry("gone.png", scene / "gone.png")], scene)({"place": [0]})
    assert "has no photo" in made["error"][0]
    assert made["of_model"] == [False]


@pytest.mark.parametrize(("of_model", "kind"), [(True, ModelRefused), (False, InspectorError)])
def test_what_is_wrong_with_a_node_ends_the_run_with_its_name(ray, monkeypatch, of_model, kind):
    row = {"error": "the worker has no model file", "hint": "h", "node": "192.0.2.7"}
    row |= {"of_model": of_model, "start": 0, "rows": ""}
    data = SimpleNamespace(
        map_batches=lambda *_, **__: SimpleNamespace(iter_rows=lambda: iter([row]))
    )
    ray.data = SimpleNamespace(
        from_items=lambda items, **_: data,
        ActorPoolStrategy=lambda size: None,
        DataContext=SimpleNamespace(get_current=SimpleNamespace),
    )
    ray.cluster_resources = lambda: {"CPU": 2.0}
    ray.put = list
    ray.is_initialized = lambda: True
    ray.exceptions = SimpleNamespace(RayError=OSError)
    monkeypatch.setattr(ray_data, "_counter", lambda ray: None)
    monkeypatch.setattr(ray_data, "require_ray", lambda: None)
    with pytest.raises(kind, match="no model file") as found:
        list(ray_data.ray_rows(asked(), [(0, (Entry("a", None),))], 0))
    assert found.value.where == "node 192.0.2.7"


def test_ray_is_asked_for_before_work_starts(scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    monkeypatch.setattr(Auditor, "__post_init__", lambda self: pytest.fail("work began"))
    with pytest.raises(MissingExtra, match="ray"):
        audit(Opening("cheating.onnx"), scene / "data", scene / "out", AuditOptions(engine="ray"))
    assert not (scene / "out").exists()
