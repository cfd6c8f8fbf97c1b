"""Many photos through a network: batches opened ahead, and batches side by side."""

import threading
import time
import warnings

import numpy as np
import onnx
import pytest
from background import threads
from networks import onnx_model
from onnx import TensorProto, helper
from PIL import Image
from waiting import WAIT, soon

import inspector
from inspector.errors import ImageRefused, InspectorWarning, MethodRefused
from inspector.passes import batches as module
from inspector.passes import prefetch
from inspector.passes.activations import activations
from inspector.passes.batches import batches, passes
from inspector.passes.ranking import strongest
from inspector.photos import photo as photo_module
from inspector.photos.pillow_files import PILLOW_QUIET

pytestmark = pytest.mark.timeout(60)
W = np.random.default_rng(8).normal(size=(4, 3, 3, 3)).astype(np.float32)


def network(path, *, batch="n", reshape=0, cast=None):
    """Conv 3x3, Relu, mean over places, on RGB of 6x6; ``reshape`` bakes a batch size in."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Reshape", ["g", "shape"], ["y"]),
        helper.make_node("Cast", ["r"], ["i"], to=TensorProto.INT32),
    ]
    constants = {"w": W, "shape": np.array([reshape, 4], np.int64)}
    onnx.save(
        onnx_model(
            nodes,
            {"x": [batch, 3, 6, 6]},
            [
                helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4]),
                helper.make_tensor_value_info("i", TensorProto.INT32, [batch, 4, 6, 6]),
            ],
            constants,
        ),
        path,
    )
    return inspector.load(path, preprocess="unit", device="cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return network(tmp_path_factory.mktemp("small") / "small.onnx")


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 4)


def pictures(count, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3)).astype(np.uint8))


def slow(photo):
    """Relu of the convolution, place by place, in double precision: (4, 6, 6)."""
    padded = np.pad(photo.transpose(2, 0, 1) / 255, ((0, 0), (1, 1), (1, 1)))
    found = np.zeros((4, 6, 6))
    for k, y, x in np.ndindex(4, 6, 6):
        found[k, y, x] = max((W[k] * padded[:, y : y + 3, x : x + 3]).sum(), 0)
    return found


def kinds(items):
    return [items, tuple(items), iter(items), (item for item in items)]


class Counted:
    """An iterator that counts what was asked of it."""

    def __init__(self, items):
        self.items, self.count = iter(items), 0

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self.items)
        self.count += 1
        return item


class Explosive:
    """A source that fails in a way that is not a refusal."""

    def __array__(self, *_, **__):
        raise RuntimeError("the camera is off")


def look(batch, found):
    """Everything about a batch, copied."""
    return batch.places, {name: np.array(values) for name, values in found.items()}


def rows(looked):
    """Places and rows of tensors of all batches, one after another."""
    looked = list(looked)
    places = [place for found, _ in looked for place in found]
    names = looked[0][1]
    return places, {name: np.concatenate([found[name] for _, found in looked]) for name in names}


# -- batches --------------------------------------------------------------------------------------


def test_batches_hold_the_photos_in_order(small):
    items = pictures(20)
    for images in kinds(items):
        refused = []
        found = list(batches(small, images, refused))
        assert [batch.places for batch in found] == [
            tuple(range(8)),
            tuple(range(8, 16)),
            tuple(range(16, 20)),
        ]
        assert not refused
        assert not threads()
        for batch in found:
            for place, source, photo, tensor, geometry in zip(
                batch.places,
                batch.sources,
                batch.photos,
                batch.tensors,
                batch.geometries,
                strict=True,
            ):
                assert source is items[place]
                np.testing.assert_array_equal(photo.pixels, items[place])
                wanted, wanted_geometry = small.preprocessing.preprocess.apply(photo)
                np.testing.assert_array_equal(tensor, wanted)
                np.testing.assert_allclose(tensor, items[place].transpose(2, 0, 1) / 255, rtol=1e-6)
                assert geometry == wanted_geometry


@pytest.mark.parametrize("images", [[], iter([])])
def test_no_photos_are_no_batches(small, images):
    told = []
    assert list(batches(small, images, [], lambda *now: told.append(now))) == []
    assert list(passes(small, images, ["r"], look, refused=[])) == []
    assert told == []


def unreadable(tmp_path):
    """20 photos of which five cannot be read; where they are, and what is said of them."""
    broken, empty = tmp_path / "broken.png", tmp_path / "empty.png"
    broken.write_bytes(b"no picture")
    empty.write_bytes(b"")
    items = pictures(20)
    items[0], items[3], items[10] = tmp_path / "missing.png", broken, str(empty)
    items[11], items[19] = np.zeros((2, 2, 7), np.uint8), np.full((5, 6, 3), 300.0)
    words = ["no such file", "not an image", "file is empty", "shape", "outside 0..255"]
    return items, (0, 3, 10, 11, 19), words


def check_refused(refused, words):
    assert all(isinstance(error, ImageRefused) for error in refused)
    assert len(refused) == len(words)
    for error, word in zip(refused, words, strict=True):
        assert word in str(error)


def test_unreadable_photos_are_listed_and_shift_nothing(small, tmp_path):
    items, gone, words = unreadable(tmp_path)
    kept = [place for place in range(20) if place not in gone]
    for images in kinds(items):
        refused = []
        found = list(batches(small, images, refused))
        check_refused(refused, words)
        assert [batch.places for batch in found] == [tuple(kept[:8]), tuple(kept[8:])]
        for batch in found:
            assert all(
                source is items[place]
                for place, source in zip(batch.places, batch.sources, strict=True)
            )
            for place, photo in zip(batch.places, batch.photos, strict=True):
                np.testing.assert_array_equal(photo.pixels, items[place])


def test_what_is_known_already_is_not_opened(small, tmp_path):
    items = pictures(20)
    known = {0, 1, 2, 9, 19}
    for place in known:
        items[place] = tmp_path / "never-opened.png"
    refused, told = [], []
    found = list(batches(small, items, refused, lambda *now: told.append(now), skip=known))
    kept = [place for place in range(20) if place not in known]
    assert [place for batch in found for place in batch.places] == kept
    assert not refused
    assert told == [("photos", place + 1, 20) for place in kept]


@pytest.mark.parametrize(("kind", "total"), [(list, 20), (iter, 0)])
def test_progress_counts_photos_that_the_caller_is_done_with(small, tmp_path, kind, total):
    items, _, _ = unreadable(tmp_path)
    told = []
    running = batches(small, kind(items), [], lambda *now: told.append(now))
    before = [(len(told), batch.places[-1]) for batch in running]
    assert told == [("photos", done, total) for done in range(1, 21)]
    assert before == [(9, 9), (20, 18)]  # all photos up to the batch's last, and those refused


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_no_more_photos_are_opened_than_may_wait(small, monkeypatch, cores):
    monkeypatch.setattr(module, "cores", lambda: cores)
    images = Counted(pictures(60))
    for number, batch in enumerate(batches(small, images, []), 1):
        assert images.count <= 8 * number + 8
        assert len(batch.places) == (8 if number < 8 else 4)
    assert images.count == 60


def test_photos_are_opened_while_the_caller_is_busy(small, monkeypatch):
    opened, opening = [], photo_module.Photo.of
    monkeypatch.setattr(
        photo_module.Photo,
        "of",
        lambda pixels: opened.append(threading.current_thread()) or opening(pixels),
    )
    running = batches(small, pictures(60), [])
    next(running)
    assert soon(lambda: len(opened) == 16)
    assert threading.current_thread() not in opened
    running.close()
    assert not threads()
    assert len(opened) == 16


def test_photos_of_the_size_of_the_room_are_opened_one_at_a_time(small, monkeypatch):
    monkeypatch.setattr(prefetch, "MOST_BYTES", 100)  # a photo has 108, and its tensor 432
    monkeypatch.setattr(module, "cores", lambda: 2)
    opened, opening = [], photo_module.Photo.of
    monkeypatch.setattr(
        photo_module.Photo, "of", lambda pixels: opened.append(0) or opening(pixels)
    )
    for number, _ in enumerate(batches(small, pictures(24), []), 1):
        time.sleep(0.05)
        assert len(opened) <= 8 * number + 1
    assert len(opened) == 24


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_the_callers_own_error_ends_the_threads(small, four_cores, kind):
    def fails(running):
        for _ in running:
            raise kind

    for start in (
        lambda images: batches(small, images, []),
        lambda images: passes(small, images, ["r"], look, refused=[]),
    ):
        images = Counted(pictures(200))
        with pytest.raises(kind):
            fails(start(images))
        assert not threads()
        assert images.count < 100


def test_other_errors_are_raised_in_their_turn(small, four_cores):
    items = pictures(40)
    items[17] = Explosive()
    for running in (
        batches(small, items, []),
        passes(small, items, ["r"], lambda batch, _: batch, refused=[]),
    ):
        assert [next(running).places[0] for _ in range(2)] == [0, 8]
        with pytest.raises(RuntimeError, match="the camera is off"):
            next(running)
        assert list(running) == []
        assert not threads()


def test_a_model_of_one_image_gets_one_at_a_time(tmp_path, four_cores):
    model = network(tmp_path / "one.onnx", batch=1)
    items = pictures(5)
    assert [b.places for b in batches(model, items, [])] == [(0,), (1,), (2,), (3,), (4,)]
    looked = list(passes(model, items, ["r"], look, refused=[]))
    assert [places for places, _ in looked] == [(0,), (1,), (2,), (3,), (4,)]
    for place, (_, found) in enumerate(looked):
        np.testing.assert_allclose(found["r"][0], slow(items[place]), atol=1e-5)


# -- side by side ---------------------------------------------------------------------------------


def test_batches_side_by_side_equal_the_formula(small, four_cores):
    items = pictures(45)
    for images in kinds(items):
        places, found = rows(passes(small, images, ["r", "y"], look, refused=[]))
        assert places == list(range(45))
        assert not threads()
        wanted = np.stack([slow(item) for item in items])
        np.testing.assert_allclose(found["r"], wanted, atol=1e-5)
        np.testing.assert_allclose(found["y"], wanted.mean((2, 3)), atol=1e-5)


def test_side_by_side_gives_the_very_numbers_of_one_after_another(small, monkeypatch):
    items, found = pictures(100), []
    for cores in (1, 2, 4):  # one thread a batch each time
        monkeypatch.setattr(module, "cores", lambda cores=cores: cores)
        found.append(rows(passes(small, items, ["r", "y"], look, refused=[])))
    plain = [
        (batch.places, activations(small, batch.tensors, ["r", "y"]))
        for batch in batches(small, items, [])
    ]
    for places, values in found:
        assert places == found[0][0] == list(range(100))
        for name in ("r", "y"):
            np.testing.assert_array_equal(values[name], found[0][1][name])
            np.testing.assert_allclose(values[name], rows(plain)[1][name], atol=1e-6)


def test_as_many_batches_are_under_way_as_there_are_cores(small, four_cores):
    together, seen = threading.Barrier(4), set()

    def met(batch, found):
        together.wait(WAIT)  # breaks unless four batches meet
        seen.add(threading.current_thread())
        return batch.places[0]

    found = list(passes(small, pictures(64), ["r"], met, refused=[]))
    assert found == list(range(0, 64, 8))
    assert len(seen) == 4
    assert threading.current_thread() not in seen


def test_a_slow_batch_keeps_its_place(small, four_cores):
    others = threading.Event()

    def waits(batch, found):
        if batch.places[0] == 0:
            assert others.wait(WAIT)
        if batch.places[0] == 16:
            others.set()
        return batch.places

    found = list(passes(small, pictures(40), ["r"], waits, refused=[]))
    assert [places[0] for places in found] == [0, 8, 16, 24, 32]


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (4, 4), (64, 4)])
def test_no_more_batches_are_read_than_may_wait(small, monkeypatch, cores, workers):
    monkeypatch.setattr(module, "cores", lambda: cores)
    images = Counted(pictures(160))
    running = passes(small, images, ["r"], lambda batch, _: batch, refused=[])
    for number, _ in enumerate(running, 1):
        assert images.count == min(160, 8 * (number + workers))
    assert number == 20


def test_the_cores_are_shared_among_the_batches(small, monkeypatch):
    made, runtime = [], inspector.engines.runtime.Runtime
    monkeypatch.setattr(
        module,
        "Runtime",
        lambda *args, **options: made.append(options) or runtime(*args, **options),
    )
    for cores in (1, 3, 4, 9):
        monkeypatch.setattr(module, "cores", lambda cores=cores: cores)
        list(passes(small, pictures(9), ["r"], look, refused=[]))
    assert [options["threads"] for options in made] == [1, 1, 1, 2]
    assert {options["device"] for options in made} == {"cpu"}


def test_the_models_own_session_stays(small, four_cores):
    small.forward(np.zeros((1, 3, 6, 6), np.float32), ["y"])
    before = small.model.runtime, small.model.runtime._session
    list(passes(small, pictures(40), ["r", "c", "g"], look, refused=[]))
    assert (small.model.runtime, small.model.runtime._session) == before


def test_one_session_is_loaded_before_the_threads_begin(small, four_cores, monkeypatch):
    loading, load = [], inspector.engines.runtime.Runtime._load
    monkeypatch.setattr(
        inspector.engines.runtime.Runtime,
        "_load",
        lambda runtime: loading.append(threading.current_thread()) or load(runtime),
    )
    list(passes(small, pictures(64), ["r", "c"], look, refused=[]))
    assert loading == [threading.current_thread()]


def test_unreadable_photos_are_listed_in_order_side_by_side(small, four_cores, tmp_path):
    items, gone, words = unreadable(tmp_path)
    kept = [place for place in range(20) if place not in gone]
    refused = []
    places, found = rows(passes(small, items, ["r"], look, refused=refused))
    check_refused(refused, words)
    assert places == kept
    for place, values in zip(places, found["r"], strict=True):
        np.testing.assert_allclose(values, slow(items[place]), atol=1e-5)


def test_a_batch_of_nothing_but_refusals_is_passed_over(small, four_cores, tmp_path):
    items = pictures(24)
    items[8:16] = [tmp_path / f"{place}.png" for place in range(8, 16)]
    refused, told = [], []
    looked = list(
        passes(small, items, ["r"], look, refused=refused, progress=lambda *now: told.append(now))
    )
    assert [places for places, _ in looked] == [tuple(range(8)), tuple(range(16, 24))]
    assert [error.where.rpartition("/")[2] for error in refused] == [
        f"{n}.png" for n in range(8, 16)
    ]
    assert told == [("photos", done, 24) for done in (8, 16, 24)]


def test_refusals_are_known_when_their_batch_is_given(small, four_cores, tmp_path):
    items = pictures(40)
    items[2] = items[39] = tmp_path / "missing.png"
    refused = []
    running = passes(small, items, ["r"], look, refused=refused)
    counts = [len(refused) for _ in running]
    assert counts == [1, 1, 1, 1, 2]


@pytest.mark.parametrize(("kind", "total"), [(list, 20), (iter, 0)])
def test_progress_and_skipping_side_by_side(small, four_cores, tmp_path, kind, total):
    items, known = pictures(20), {0, 1, 7, 19}
    for place in known:
        items[place] = tmp_path / "never-opened.png"
    refused, told = [], []
    places, _ = rows(
        passes(
            small,
            kind(items),
            ["r"],
            look,
            refused=refused,
            skip=known,
            progress=lambda *now: told.append(now),
        )
    )
    assert places == [place for place in range(20) if place not in known]
    assert not refused
    assert told == [("photos", 11, total), ("photos", 19, total)]


def test_an_error_of_look_is_raised_in_its_turn(small, four_cores):
    error = ZeroDivisionError("in batch 2")

    def fails(batch, found):
        if batch.places[0] == 16:
            raise error
        return batch.places[0]

    running = passes(small, pictures(80), ["r"], fails, refused=[])
    assert [next(running), next(running)] == [0, 8]
    with pytest.raises(ZeroDivisionError) as raised:
        next(running)
    assert raised.value is error
    assert not threads()


def test_integers_of_unknown_meaning_are_refused(small, four_cores):
    with pytest.raises(MethodRefused, match="int32"):
        list(passes(small, pictures(20), ["i"], look, refused=[]))
    assert not threads()


def test_a_batch_that_the_model_refuses_goes_through_photo_by_photo(tmp_path, four_cores):
    model = network(tmp_path / "baked.onnx", reshape=1)  # says that its batch is free
    items = pictures(40)
    places, found = rows(passes(model, items, ["y"], look, refused=[]))
    assert places == list(range(40))
    wanted = np.stack([slow(item).mean((1, 2)) for item in items])
    np.testing.assert_allclose(found["y"], wanted, atol=1e-5)


def test_ranking_side_by_side_equals_ranking_in_turn(small, monkeypatch):
    items = pictures(90)
    items[50] = items[4]  # of equal ones the first stays
    found = []
    for cores in (1, 4):
        monkeypatch.setattr(module, "cores", lambda cores=cores: cores)
        winners, used = strongest(small, "r", items, range(4), count=5, refused=[])
        assert used == 90
        found.append(
            [(w.unit, w.value, w.place, w.y, w.x) for one in winners.values() for w in one]
        )
    assert found[0] == found[1]
    peaks = np.stack([slow(item).max((1, 2)) for item in items])
    for unit in range(4):
        order = sorted(range(90), key=lambda place, unit=unit: (-peaks[place, unit], place))
        assert [place for own, _, place, _, _ in found[1] if own == unit] == order[:5]


# -- warnings -------------------------------------------------------------------------------------


def test_pillows_warnings_are_silent_in_all_threads(small, four_cores, monkeypatch, tmp_path):
    path = tmp_path / "large.png"
    Image.fromarray(pictures(1)[0]).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # the photo has 36: Pillow warns
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(path).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        refused = []
        assert sum(len(b.places) for b in batches(small, [path] * 50, refused)) == 50
        assert (
            sum(passes(small, [path] * 50, ["r"], lambda b, _: len(b.places), refused=refused))
            == 50
        )
        assert not refused
        assert warnings.filters == before
        with pytest.raises(Image.DecompressionBombWarning):  # nobody else was silenced
            Image.open(path)


def test_a_second_reader_leaves_the_first_ones_filter_alone(monkeypatch):
    quiet = PILLOW_QUIET
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)

        def warn():
            warnings.warn_explicit("odd metadata", UserWarning, "f", 1, module="PIL.Image")

        with quiet:
            # Taken out and put in again, it would be missing for a moment.
            with monkeypatch.context() as patch:
                patch.setattr(warnings, "filterwarnings", lambda *_, **__: pytest.fail("touched"))
                with quiet:
                    warn()
            warn()  # the first reader is still there
            with warnings.catch_warnings():  # another thread swaps the filters
                warnings.simplefilter("error")
                with pytest.raises(UserWarning):
                    warn()
                with quiet:
                    warn()
        assert warnings.filters == before
        with pytest.raises(UserWarning):
            warn()


def through_batches(model, images):
    return sum(len(batch.places) for batch in batches(model, images, []))


def through_passes(model, images):
    found = passes(model, images, ["y"], lambda batch, _: len(batch.places), refused=[])
    return sum(found)


@pytest.mark.parametrize("way", [through_batches, through_passes])
def test_photos_that_the_network_hardly_sees_are_said_and_counted(small, way):
    wide = [np.full((10, 40, 3), 90, np.uint8) for _ in range(9)]
    upright = [np.full((10, 10, 3), 90, np.uint8)]
    with pytest.warns(InspectorWarning) as told:
        assert way(small, [*wide, *upright]) == 10
    texts = [str(item.message) for item in told]
    assert sum("the network sees" in text for text in texts) == 5
    assert texts[-1].startswith("4 more photos have warnings")
