"""Content that photos of a class share at one place, found without a map."""

import numpy as np
import pytest
from PIL import Image

from inspector.audit import interventions
from inspector.audit.findings import shared_content
from inspector.audit.findings.shared_content import find_shared_content

SIZE = 48
RNG = np.random.default_rng(0)
LOGO = RNG.integers(0, 2, (8, 14, 1)) * 255


class Photos:
    """Opens photos from memory."""

    def __init__(self, pixels):
        self.pixels, self.seen = pixels, 0

    def opened(self, places, most):
        for place in list(places)[:most]:
            self.seen += 1
            yield place, self.pixels[place]


def photos(count=60, size=SIZE):
    """Noise of two scales, (count, size, size, 3)."""
    fine = RNG.normal(0, 12, (count, size, size, 1))
    coarse = RNG.normal(128, 25, (count, size // 2, size // 2, 3)).repeat(2, 1).repeat(2, 2)
    return np.clip(coarse + fine, 0, 255).astype(np.uint8)


def found(pixels, classes):
    rows = [{"predicted": f"c{c}", "index": int(c)} for c in classes]
    return list(find_shared_content(rows, Photos(pixels)))


CLASSES = np.arange(60) % 3


def stamped(pixels, places, opacity=1.0):
    for place in places:
        part = pixels[place][36:44, 30:44]
        part[:] = np.rint((1 - opacity) * part + opacity * LOGO)
    return pixels


@pytest.mark.parametrize("opacity", [1.0, 0.6])
def test_a_mark_on_a_quarter_of_a_class_is_found_where_it_is(opacity):
    own = np.flatnonzero(CLASSES == 1)[:5]
    (one,) = found(stamped(photos(), own, opacity), CLASSES)
    assert (one.name, one.members, one.others) == ("c1", tuple(own), 0)
    np.testing.assert_allclose(one.region, np.array([36, 30, 44, 44]) / SIZE, atol=2 / 16)


def test_a_mark_that_all_classes_carry_alike_is_no_sign_of_one():
    assert found(stamped(photos(), range(0, 60, 2)), CLASSES) == []


def test_photos_that_share_nothing_say_nothing():
    pixels = photos()
    assert found(pixels, CLASSES) == []
    assert found(np.full_like(pixels, 200), CLASSES) == []
    assert found(pixels[:9], CLASSES[:9]) == []
    assert found([np.zeros((1, 1, 3), np.uint8)] * 60, CLASSES) == []


def test_of_large_photos_fewer_are_opened(monkeypatch):
    monkeypatch.setattr(shared_content, "_PIXELS", 15 * SIZE * SIZE)
    opened = Photos(photos())
    rows = [{"predicted": f"c{c}", "index": int(c)} for c in CLASSES]
    list(find_shared_content(rows, opened))
    assert opened.seen == 3 * 16


def test_no_more_pixels_are_kept_than_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(interventions, "_KEPT", 2 * SIZE * SIZE * 3)
    kept = interventions.Photos()
    made = photos(4)
    for number, pixels in enumerate(made):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        kept.add(tmp_path / f"{number}.png", pixels)
    assert sorted(kept._kept) == [0, 1]
    np.testing.assert_array_equal(np.stack(list(kept)), made)
    np.testing.assert_array_equal(np.stack(kept[1:3]), made[1:3])
