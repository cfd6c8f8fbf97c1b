"""What does not fit into memory at once is done in parts; what does not fit at all is said."""

from pathlib import Path

import inspector
from inspector import verdicts
from inspector.engines.runtime import Runtime
from inspector.errors import LimitExceeded

MODEL = Path(__file__).parents[2] / "sample_models" / "all_cnn_c.onnx"


def test_shapes_are_measured_in_parts(monkeypatch):
    opened = inspector.load(MODEL)
    expected = dict(inspector.load(MODEL).shapes())
    run, most = Runtime.run, []

    def narrow(self, feeds, fetch):
        if len(fetch) > 3:
            raise LimitExceeded("out of memory")
        most.append(len(fetch))
        return run(self, feeds, fetch)

    monkeypatch.setattr(Runtime, "run", narrow)
    assert dict(opened.shapes()) == expected
    assert max(most) <= 3


def test_methods_are_tried_one_by_one_and_the_one_that_does_not_fit_is_named(monkeypatch):
    def attempts(opened, image, methods, target):
        if len(methods) > 1 or methods == ["cam"]:
            raise MemoryError
        return dict.fromkeys(methods)

    monkeypatch.setattr(verdicts, "attempts", attempts)
    found = verdicts._within_memory(None, None, ["cam", "grad-cam"], "top1")
    assert isinstance(found["cam"], LimitExceeded)
    assert found["grad-cam"] is None
