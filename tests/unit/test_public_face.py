"""The public face: what ``inspector`` offers by name, and what each module says it offers."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import converters
import inspector

PUBLIC = {
    "ConverterError": type,
    "Explainer": type,
    "Explanation": type,
    "ImageRefused": type,
    "ImageReport": type,
    "InspectorError": type,
    "InspectorWarning": type,
    "MethodRefused": type,
    "MissingExtra": type,
    "ModelRefused": type,
    "Photo": type,
    "Preprocess": type,
    "Report": type,
    "UsageError": type,
    "configured": object,
    "load": object,
    "load_heatmap": object,
    "load_photo": object,
    "overlay": object,
}

MODULES = sorted(
    module.name
    for package in (inspector, converters)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
    # These run when they are imported, or need the framework that they convert.
    if module.name.rpartition(".")[2] not in {"__main__", "child"} and ".to_onnx" not in module.name
)


def test_the_public_names_are_these_and_each_can_be_imported():
    assert set(inspector.__all__) == {*PUBLIC, "MethodName", "__version__"}
    for name, kind in PUBLIC.items():
        found = getattr(inspector, name)
        assert isinstance(found, kind)
        assert callable(found)
        assert found.__doc__
        assert found.__name__ == name
    namespace = {}
    exec("from inspector import *", namespace)  # noqa: S102 - our own package
    assert set(PUBLIC) <= set(namespace)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        inspector.lod  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, inspector, converters\n"
        "assert not {'torch', 'onnxruntime', 'numpy', 'onnx', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own program


def test_every_module_offers_what_it_says():
    missing, twice = [], []
    for name in MODULES:
        module = importlib.import_module(name)
        offered = getattr(module, "__all__", [])
        missing += [f"{name}.{word}" for word in offered if not hasattr(module, word)]
        twice += [name] if len(set(offered)) < len(offered) else []
    assert not missing
    assert not twice
