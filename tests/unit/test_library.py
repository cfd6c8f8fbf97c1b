"""The library as a caller uses it: what targets, images and models may be, and what comes back."""

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from PIL import Image, ImageShow

import inspector
from inspector.errors import UnknownLayer, UnknownMethod, UnknownTarget
from inspector.methods import MethodName, methods

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "sample_models/resnet20.onnx"
HORSE, DOG = (ROOT / f"sample_models/images/{name}_1.png" for name in ("horse", "dog"))


@pytest.fixture(scope="module")
def model():
    return inspector.load(MODEL, unverified=True)


@pytest.fixture(scope="module")
def horse(model):
    return model.explain(HORSE, target="horse")


# -- targets --------------------------------------------------------------------------------------


def labels(report):
    return [[one.attribution.label for one in image] for image in report]


def test_a_list_holds_one_target_per_image_and_a_tuple_several_of_each(model):
    pair = [HORSE, DOG]
    assert labels(model.explain(pair, target=["horse", 3])) == [["horse"], ["cat"]]
    assert labels(model.explain(pair, target=("horse", 3))) == [["horse", "cat"]] * 2
    assert labels(model.explain(pair, target=[("horse", 3), 5])) == [["horse", "cat"], ["dog"]]
    assert labels(model.explain(HORSE, target=["horse", 3])) == [["horse", "cat"]]
    assert labels(model.explain(iter(pair), target=["horse", 3])) == [["horse"], ["cat"]]


@pytest.mark.parametrize("targets", [["horse"], ["horse", "cat", "dog"]])
@pytest.mark.parametrize("given", [list, iter])
def test_a_list_of_another_length_than_the_images_is_refused(model, targets, given):
    with pytest.raises(inspector.UsageError, match=r"targets for .* images; a list holds one"):
        model.explain(given([HORSE, DOG]), target=targets)


@pytest.mark.parametrize("kind", [np.array, torch.tensor, lambda n: [torch.tensor(i) for i in n]])
def test_labels_of_a_batch_are_targets(model, kind):
    assert labels(model.explain([HORSE, DOG], "cam", target=kind([7, 5]))) == [["horse"], ["dog"]]
    images = np.zeros((2, 3, 32, 32), np.float32)
    assert labels(model.explain_tensor(images, "cam", target=kind([7, 5]))) == [["horse"], ["dog"]]
    assert model.attribute(images, "cam", target=kind([7, 5])).shape == (2, 8, 8)
    assert labels(model.explain(HORSE, "cam", target=kind([7])[0])) == [["horse"]]
    with pytest.raises(inspector.UsageError, match="a value of type float"):
        model.explain(HORSE, "cam", target=kind([1.5]))
    with pytest.raises(inspector.UsageError, match="3 targets for 2 images"):
        model.explain([HORSE, DOG], "cam", target=kind([7, 5, 1]))


def test_targets_stay_with_their_images_when_one_cannot_be_read(model, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no photo")
    report = model.explain([HORSE, broken, DOG], target=["horse", "ship", "dog"])
    assert labels(report) == [["horse"], ["dog"]]
    assert len(report.refused) == 1


@pytest.mark.parametrize("engine", ["twin", "onnx"])
def test_a_function_of_the_scores_is_a_target(engine):
    model = inspector.load(MODEL, unverified=True, engine=engine)
    by_words = model.explain(HORSE, target="sum(horse; -dog)").heatmap
    by_function = model.explain(HORSE, target=lambda s: s[:, 7] - s[:, 5]).heatmap
    np.testing.assert_allclose(by_function, by_words, atol=1e-6)


def test_a_function_may_be_anything_that_torch_differentiates(model):
    def margin(scores):
        others = torch.cat([scores[:, :7], scores[:, 8:]], 1)
        return scores[:, 7] - others.max(1).values

    report = model.explain(HORSE, ["gradient", "occlusion:window=16,stride=16"], target=margin)
    assert [one.attribution.label for one in report[0]] == ["margin"] * 2
    assert report[0][0].attribution.score == pytest.approx(float(report[0][1].attribution.score))


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda s: s.sum(), r"returns \(\) for values"),
        (lambda s: s[:, :2], r"returns \(1, 2\)"),
        (lambda s: 3, "returns int"),
        (lambda s: s[:, 3] * 1j, "returns complex"),
        (lambda s: s[:, 99], r"fails on values of shape \(1, 10\)"),
    ],
)
def test_a_function_that_gives_no_number_per_image_is_refused(model, function, said):
    with pytest.raises(inspector.UsageError, match=said):
        model.explain(HORSE, target=function)


def test_several_layers_give_a_map_each_and_what_goes_through_none_comes_once(model):
    names = [layer.tensor for layer in model.layers][-2:]
    report = model.explain(HORSE, ["grad-cam", "gradient"], layer=names)
    assert [one.attribution.layer for one in report[0]] == [names[0], None, names[1]]
    files = [path.name for path in report.save(Path("unused"), formats=())]
    assert files == []
    with pytest.raises(UnknownLayer):
        model.explain(HORSE, layer=[names[0], "nothing"])
    with pytest.raises(inspector.UsageError, match="0 layers"):
        model.explain(HORSE, layer=[])


# -- images ---------------------------------------------------------------------------------------


def as_tensor(array):
    return torch.from_numpy(np.array(array))  # a copy: photos are read-only


IMAGES = {
    "text": lambda array: str(HORSE),
    "bytes": lambda array: HORSE.read_bytes(),
    "bytearray": lambda array: bytearray(HORSE.read_bytes()),
    "file": lambda array: io.BytesIO(HORSE.read_bytes()),
    "pil": Image.fromarray,
    "colours last": lambda array: array,
    "colours first": lambda array: array.transpose(2, 0, 1),
    "tensor": lambda array: as_tensor(array.transpose(2, 0, 1)),
    "tensor with a gradient": lambda array: as_tensor(array).double().requires_grad_(),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_a_photo_is_the_same_in_whatever_it_comes(model, horse, kind):
    array = np.asarray(Image.open(HORSE).convert("RGB"))
    found = model.explain(IMAGES[kind](array), target="horse")
    np.testing.assert_array_equal(found.heatmap, horse.heatmap)


def test_an_open_file_gives_its_name_and_is_one_image(model):
    with HORSE.open("rb") as stream:
        assert model.explain(stream)[0].photo.name == "horse_1.png"
    with HORSE.open("r", encoding="latin-1") as stream, pytest.raises(inspector.ImageRefused):
        model.explain(stream)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((3, 40, 3), "first or last"),
        ((1, 40, 4), "first or last"),
        ((2, 3, 32, 32), "explain_tensor"),
        ((5, 6, 7), "is not an image"),
        ((0, 3, 3), "is not an image"),
    ],
)
def test_arrays_that_are_no_photo_or_may_be_two_are_refused(model, shape, said):
    with pytest.raises(inspector.ImageRefused, match=said):
        model.explain(np.zeros(shape, np.uint8))


def test_preprocessed_images_are_explained_as_they_are(model):
    photo = inspector.load_photo(HORSE)
    tensor, _ = model.preprocessing.preprocess.apply(photo)
    report = model.explain_tensor(torch.from_numpy(tensor[None]), target=["horse"])
    np.testing.assert_array_equal(report.heatmap, model.explain(HORSE, target="horse").heatmap)
    assert np.abs(report[0].photo.pixels.astype(int) - photo.pixels).max() <= 1
    both = np.stack([tensor, tensor[:, ::-1]])
    assert model.attribute(both, target=["horse", 3]).shape == (2, 8, 8)
    assert len(model.explain_tensor(both, target=("horse", "cat"))[1]) == 2
    with pytest.raises(inspector.UsageError, match="1 targets for 2 images"):
        model.explain_tensor(both, target=["horse"])
    with pytest.raises(inspector.UsageError, match="array of shape"):
        model.explain_tensor(tensor)


# -- models ---------------------------------------------------------------------------------------


def sources():
    data = MODEL.read_bytes()
    return {"bytes": data, "view": memoryview(data), "proto": onnx.load_from_string(data)}


@pytest.mark.parametrize("kind", ["bytes", "view", "proto"])
def test_a_model_in_memory_is_opened_and_pickled_with_its_content(horse, kind):
    model = inspector.load(sources()[kind], unverified=True)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
    assert again.file.sha256 == model.file.sha256
    for one in (model, again):
        np.testing.assert_array_equal(one.explain(HORSE, target="7").heatmap, horse.heatmap)


def test_nothing_beside_the_working_folder_is_read_for_a_model_in_memory(tmp_path, monkeypatch):
    (tmp_path / "labels.txt").write_text("\n".join("abcdefghij"))
    (tmp_path / "config.json").write_text('{"mean": [0.1, 0.1, 0.1]}')
    bare = onnx.load_from_string(MODEL.read_bytes())
    del bare.metadata_props[:]
    monkeypatch.chdir(tmp_path)
    model = inspector.load(bare, unverified=True)
    assert model.class_labels.names == ()
    assert "beside" not in str(model.preprocessing.evidence)


@pytest.mark.parametrize("given", [b"", b"PK\x03\x04 no model", 3, None, {"a": 1}])
def test_what_is_no_model_is_refused_in_one_line(given):
    with pytest.raises(inspector.InspectorError):
        inspector.load(given)


def test_an_explainer_is_pickled_by_path_and_hash(tmp_path, horse):
    path = tmp_path / "model.onnx"
    path.write_bytes(MODEL.read_bytes())
    model = inspector.load(path, unverified=True)
    packed = pickle.dumps(model)
    assert len(packed) < 2000
    again = pickle.loads(packed)  # noqa: S301 - our own
    np.testing.assert_array_equal(again.explain(HORSE, target="horse").heatmap, horse.heatmap)
    assert again.unverified
    assert copy.deepcopy(model).file.sha256 == model.file.sha256
    other = onnx.load_from_string(MODEL.read_bytes())
    other.producer_name = "another"
    path.write_bytes(other.SerializeToString())
    with pytest.raises(inspector.ModelRefused, match="is not the file that was pickled"):
        pickle.loads(packed)  # noqa: S301 - our own
    path.unlink()
    with pytest.raises(inspector.ConverterError):
        pickle.loads(packed)  # noqa: S301 - our own


def test_the_model_says_its_classes(model):
    found = model.predict([HORSE, DOG], top=2)
    assert [image[0]["label"] for image in found] == ["horse", "dog"]
    assert [len(image) for image in found] == [2, 2]
    assert found[0] == list(model.explain(HORSE)[0].predictions[:2])
    with pytest.raises(inspector.UsageError):
        model.predict(HORSE, top=0)


# -- reports --------------------------------------------------------------------------------------


def test_a_report_is_counted_iterated_and_short_in_print(model):
    report = model.explain([HORSE, DOG], ["grad-cam", "gradient"])
    assert (len(report), len(report[0]), report[-1].photo.name) == (2, 2, "dog_1.png")
    assert [image.photo.name for image in report] == ["horse_1.png", "dog_1.png"]
    assert repr(report) == "<Report: 2 image(s), 4 map(s) (grad-cam, gradient)>"
    assert all(len(repr(one)) < 100 for one in (report[0], report[0][0], report[0].photo, model))
    again = pickle.loads(pickle.dumps(report))  # noqa: S301 - our own
    assert again.to_dict() == report.to_dict()
    np.testing.assert_array_equal(again[0][1].heatmap.values, report[0][1].heatmap.values)


def test_a_report_becomes_a_table(horse, monkeypatch):
    pandas = pytest.importorskip("pandas")
    table = horse.to_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert (table["method"][0], table["target"][0], table["index"][0]) == ("grad-cam", "horse", 7)


def test_a_table_without_pandas_names_the_extra(horse, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(inspector.MissingExtra, match=r"onnx-inspector\[dataframe\]"):
        horse.to_dataframe()


def test_a_report_is_drawn_on_axes(model, horse):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    assert horse.figure(axes) is axes
    assert axes.get_title().startswith("grad-cam: horse")
    two = model.explain([HORSE, DOG], ["grad-cam", "gradient"])
    assert len(two.figure().axes) == 4
    with pytest.raises(inspector.InspectorError, match="4 maps, not one"):
        two.figure(axes)


def test_a_report_is_shown_by_the_viewer_outside_of_notebooks(horse, monkeypatch):
    seen = []
    monkeypatch.setattr(ImageShow, "show", lambda image: seen.append(image.size) or True)
    monkeypatch.setenv("DISPLAY", ":0")
    horse.show()
    assert len(seen) == 1


def test_without_a_display_showing_is_a_warning(horse, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.warns(inspector.InspectorWarning, match="nothing here opens pictures"):
        horse.show()


@pytest.mark.parametrize("shape", [(7, 5), (32, 32), (200, 300)])
def test_a_map_of_ones_own_is_drawn_on_a_photo(shape):
    values = np.random.default_rng(0).normal(size=shape)
    assert inspector.overlay(HORSE, torch.from_numpy(values), label="mine").mode == "RGB"


@pytest.mark.parametrize("values", [np.zeros(3), np.full((2, 2), np.nan), "map", np.zeros((0, 2))])
def test_what_is_no_map_is_refused(values):
    with pytest.raises(inspector.UsageError):
        inspector.overlay(HORSE, values)


# -- names ----------------------------------------------------------------------------------------


def test_type_checkers_know_the_methods_there_are():
    assert list(get_args(MethodName)) == sorted(methods())


def test_a_method_takes_options_by_name(model):
    request = inspector.configured("occlusion", window=16, stride=16)
    assert request.label == "occlusion_stride-16_window-16"
    assert model.explain(HORSE, [request, "grad-cam"])[0][0].label == request.label
    with pytest.raises(inspector.UsageError, match="no option 'windwo'"):
        inspector.configured("occlusion", windwo=3)
    with pytest.raises(inspector.UsageError):
        inspector.configured("occlusion", window="wide")
    with pytest.raises(UnknownMethod):
        inspector.configured("gradcam")


def test_every_error_has_the_one_root_and_survives_a_pickle():
    import converters.errors
    import inspector.errors

    kinds = {
        kind
        for module in (converters.errors, inspector.errors)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
    }
    assert all(issubclass(kind, inspector.InspectorError) for kind in kinds)
    node = converters.errors.UnsupportedNode("n", "Op", "", 20)
    made = [
        inspector.MissingExtra("drawing", "studies"),
        UnknownTarget("no class", where="here", hint="do this"),
        converters.errors.UnsafeModel(["one", "two"], where="file"),
        converters.errors.UnsupportedOperator([node]),
    ]
    for error in made:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_the_version_is_said_and_importing_costs_next_to_nothing():
    code = (
        "import time; start = time.process_time()\n"
        "import inspector; spent = time.process_time() - start\n"
        "assert inspector.__version__[0].isdigit(); print(spent)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603
    assert float(run.stdout) < 0.05
