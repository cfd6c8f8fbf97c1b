"""How many images run through a network together, and that nothing of it shows in the results."""

import numpy as np
import pytest

from inspector.engines.samples import in_passes

CPU = "CPUExecutionProvider"


def recorded(results):
    """A run that notes how many images it got, and what it got."""
    seen = []

    def run(some):
        seen.append(len(some))
        return results(some)

    return run, seen


def sums(some):
    return {"sum": some.sum((2, 3)), "map": some[:, :1, ::32, ::32]}


@pytest.mark.parametrize(
    ("count", "size", "passes"),
    [
        (10, 224, [4, 4, 2]),
        (3, 224, [3]),
        (2, 640, [1, 1]),
        (32, 32, [32]),
    ],
)
def test_what_a_pass_holds_fits_into_the_caches(count, size, passes):
    feed = np.random.default_rng(0).random((count, 3, size, size)).astype(np.float32)
    run, seen = recorded(sums)
    found = in_passes(run, feed, ["sum", "map"], CPU)
    assert seen == passes
    for name, whole in sums(feed).items():
        np.testing.assert_array_equal(found[name], whole)


def test_a_device_with_memory_of_its_own_gets_all_images_at_once():
    run, seen = recorded(sums)
    in_passes(run, np.zeros((10, 3, 224, 224), np.float32), ["sum"], "CUDAExecutionProvider")
    assert seen == [10]


def test_large_results_are_not_joined_from_many_passes():
    run, seen = recorded(lambda some: {"wide": np.repeat(some, 8, axis=1)})
    feed = np.zeros((9, 3, 224, 224), np.float32)
    assert in_passes(run, feed, ["wide"], CPU)["wide"].shape == (9, 24, 224, 224)
    assert seen == [4, 5]


def test_lists_of_zipmap_are_set_one_behind_the_other():
    run, seen = recorded(lambda some: {"maps": [{0: float(one.max())} for one in some]})
    feed = np.arange(5, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 224, 224))
    found = in_passes(run, feed, ["maps"], CPU)
    assert found["maps"] == [{0: float(number)} for number in range(5)]
    assert seen == [4, 1]


def test_a_result_without_a_row_per_image_is_not_split():
    run, _ = recorded(lambda some: {"all": some.sum(0)})
    assert in_passes(run, np.zeros((6, 3, 224, 224), np.float32), ["all"], CPU) is None


def test_results_that_are_as_long_as_the_longest_of_a_pass_come_from_one_pass():
    def padded(some):
        return {"boxes": np.zeros((len(some), int(some.max()), 4), np.float32)}

    run, seen = recorded(padded)
    feed = np.arange(1, 7, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 224, 224))
    assert in_passes(run, feed, ["boxes"], CPU)["boxes"].shape == (6, 6, 4)
    assert seen == [4, 2, 6]
