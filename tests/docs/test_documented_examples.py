"""The ``>>>`` examples of public functions and classes run and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import converters
import inspector

FACE = [
    *(
        f"inspector.{name}"
        for name in inspector.__all__
        # Names of kinds of errors, of methods, of the version: one example is at their root.
        if name == "InspectorError"
        or (
            not name.startswith(("__", "MethodName", "Missing"))
            and not name.endswith(("Error", "Refused", "Warning"))
        )
    ),
    "inspector.explain.explain",
    "inspector.explain.explain_each",
    "inspector.explain.attribute",
    "inspector.explain.explain_tensor",
    "inspector.explain.predict",
    "inspector.compare.compare",
    "inspector.heatmap.Attribution",
    "inspector.overview.overview",
    "inspector.projection.projector.Projector",
    "inspector.report.ImageReport",
    "inspector.measures.boxes.box_of_map",
    "inspector.measures.similarity.similarity",
    "converters.onnx_file.read",
]
"""What a user of the library calls; each carries one example at least."""


def modules():
    """Every module whose source holds an example."""
    for package in (inspector, converters):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            source = found.module_finder.find_spec(found.name).loader.get_source(found.name)
            if ">>> " in (source or ""):
                yield found.name


def examples(name):
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(importlib.import_module(name)) if test.examples]


@pytest.mark.parametrize("name", sorted(modules()))
def test_examples_print_what_they_say(name, workspace):
    found = examples(name)
    assert found
    for example in found:
        said: list[str] = []
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
        assert result.attempted
        assert not result.failed, "".join(said)


@pytest.mark.parametrize("name", FACE)
def test_the_face_of_the_library_has_examples(name):
    found = inspector
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        break
    assert ">>> " in (found.__doc__ or ""), f"{name} has no example"
