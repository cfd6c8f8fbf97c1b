"""What a second map of one model does not do again."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from array_api_compat import array_namespace as namespace_of

import inspector
from inspector.engines import forward
from inspector.measures.namespace import array_namespace

MODEL = Path(__file__).parents[2] / "sample_models" / "resnet20.onnx"


def test_random_operators_are_sought_once_per_tensor(monkeypatch):
    asked = []
    sought = forward.stochastic_node

    def counting(graph, tensors):
        asked.append(list(tensors))
        return sought(graph, tensors)

    monkeypatch.setattr(forward, "stochastic_node", counting)
    model = inspector.load(MODEL, device="cpu", unverified=True)
    image = np.zeros((1, 3, 32, 32), np.float32)
    first = model.attribute(image, "grad-cam", target="3")
    assert any(asked)
    asked.clear()
    np.testing.assert_array_equal(model.attribute(image, "grad-cam", target="3"), first)
    assert not any(asked)


def test_arrays_of_numpy_and_of_torch_have_their_own_functions():
    torch = pytest.importorskip("torch")
    assert array_namespace(np.ones(2), np.ones(3)) is np
    assert array_namespace(torch.ones(2)) is namespace_of(torch.ones(2))
    with pytest.raises(TypeError):
        array_namespace(np.ones(2), torch.ones(2))


def test_a_map_from_the_shell_imports_no_parts_of_numpy_that_nobody_needs(tmp_path):
    code = (
        "import sys, inspector; import numpy as np\n"
        f"model = inspector.load({str(MODEL)!r}, device='cpu', unverified=True, engine='onnx')\n"
        "model.attribute(np.zeros((1, 3, 32, 32), np.float32), 'grad-cam', target='3')\n"
        "print([n for n in ('numpy.f2py', 'numpy.testing', 'torch') if n in sys.modules])\n"
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "[]"
