import hashlib
import io
import math
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from inspector.errors import ImageRefused
from inspector.photos import photo as photo_module
from inspector.photos.photo import Photo, load_photo


def picture(height=9, width=14, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png16(values):
    """A 16-bit PNG written by hand: Pillow cannot write colour ones."""
    height, width, channels = values.shape
    colour_type = {1: 0, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_equals_pillows_transpose(tmp_path, orientation):
    image = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, image, "turned.png", exif=exif)
    with Image.open(path) as again:
        expected = np.asarray(ImageOps.exif_transpose(again))
    found = load_photo(path)
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.size == expected.shape[:2]
    assert any("upright" in note for note in found.notes) is (orientation != 1)


@pytest.mark.parametrize("extension", ["png", "bmp", "tiff", "ppm", "webp", "gif", "jpg"])
def test_each_format_of_the_allowlist_is_read(tmp_path, extension):
    flat = np.full((8, 8, 3), (200, 30, 90), np.uint8)
    options = {"lossless": True} if extension == "webp" else {}
    path = saved(tmp_path, Image.fromarray(flat), f"flat.{extension}", **options)
    found = load_photo(path)
    tolerance = 3 if extension == "jpg" else 0
    assert np.abs(found.pixels.astype(int) - flat).max() <= tolerance
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.name == f"flat.{extension}"


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_their_precision(tmp_path, channels):
    values = np.random.default_rng(1).integers(0, 65536, (5, 7, channels)).astype(np.uint16)
    path = tmp_path / "deep.png"
    path.write_bytes(png16(values))
    found = load_photo(path)
    assert found.pixels.dtype == np.float32
    np.testing.assert_allclose(
        found.pixels, np.broadcast_to(values / 257, (5, 7, 3)), atol=2e-5, rtol=0
    )
    assert any("16" in note for note in found.notes)


def test_sixteen_bit_alpha_lies_on_white(tmp_path):
    values = np.zeros((2, 2, 4), np.uint16)
    values[..., 0] = 1000
    values[..., 3] = [[65535, 0], [32768, 65535]]
    path = tmp_path / "deep.png"
    path.write_bytes(png16(values))
    found = load_photo(path)
    alpha = values[..., 3:] / 65535
    expected = values[..., :3] / 257 * alpha + 255 * (1 - alpha)
    np.testing.assert_allclose(found.pixels, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_sixteen_bit_tiff_keeps_its_precision(tmp_path, compression):
    cv2 = pytest.importorskip("cv2")
    values = np.random.default_rng(2).integers(0, 65536, (6, 5, 3)).astype(np.uint16)
    path = tmp_path / "deep.tiff"
    flags = [cv2.IMWRITE_TIFF_COMPRESSION, 1 if compression is None else 5]
    assert cv2.imwrite(str(path), values[:, :, ::-1], flags)
    found = load_photo(path)
    assert found.pixels.dtype == np.float32
    np.testing.assert_allclose(found.pixels, values / 257, atol=2e-5, rtol=0)


def test_alpha_lies_on_white_and_is_said(tmp_path):
    rgba = np.dstack([picture(), np.full((9, 14), 128, np.uint8)])
    found = load_photo(saved(tmp_path, Image.fromarray(rgba), "glass.png"))
    expected = rgba[..., :3] * (128 / 255) + 255 * (1 - 128 / 255)
    assert np.abs(found.pixels - expected).max() <= 0.5 + 1e-4
    assert "alpha composited on white" in found.notes


def test_opaque_alpha_changes_nothing(tmp_path):
    rgba = np.dstack([picture(), np.full((9, 14), 255, np.uint8)])
    found = load_photo(saved(tmp_path, Image.fromarray(rgba), "solid.png"))
    np.testing.assert_array_equal(found.pixels, rgba[..., :3])
    assert found.notes == ()


def test_transparent_palette_lies_on_white(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 1), 1)
    found = load_photo(saved(tmp_path, image, "palette.png", transparency=0))
    assert found.pixels[0, 0].tolist() == [255, 255, 255]
    assert found.pixels[1, 1].tolist() == [40, 50, 60]


@pytest.mark.parametrize(("mode", "note"), [("CMYK", "CMYK"), ("L", "grey"), ("1", "grey")])
def test_other_modes_become_rgb_and_are_said(tmp_path, mode, note):
    image = Image.fromarray(picture()).convert(mode)
    name = "photo.jpg" if mode == "CMYK" else "photo.png"
    path = saved(tmp_path, image, name)
    with Image.open(path) as again:
        expected = np.asarray(again.convert("RGB"))
    found = load_photo(path)
    np.testing.assert_array_equal(found.pixels, expected)
    assert any(note in text for text in found.notes)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], "film.gif", save_all=True, append_images=frames[1:])
    found = load_photo(path)
    assert found.pixels[0, 0].tolist() == [255, 0, 0]
    assert any("first" in note for note in found.notes)


def test_floating_point_grey_follows_its_range(tmp_path):
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    found = load_photo(saved(tmp_path, Image.fromarray(values), "float.tiff"))
    np.testing.assert_allclose(found.pixels[..., 0], values * 255, rtol=1e-6)
    with pytest.raises(ImageRefused, match="range"):
        load_photo(saved(tmp_path, Image.fromarray(values * 1e4), "wild.tiff"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04 rest", "zip"),
        (b"\0\0\0\x18ftypjxl  and so on", "jxl"),
        (b"not an image at all", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "header|broken|not an image"),
    ],
)
def test_foreign_files_are_named(tmp_path, data, says):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageRefused, match=says) as caught:
        load_photo(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 4


def test_missing_file_folder_and_odd_path(tmp_path):
    with pytest.raises(ImageRefused, match="no such file"):
        load_photo(tmp_path / "none.png")
    with pytest.raises(ImageRefused, match="folder"):
        load_photo(tmp_path)
    with pytest.raises(ImageRefused):
        load_photo("a\0b")


@pytest.mark.parametrize("extension", ["png", "jpg", "tiff", "webp", "bmp", "ppm"])
def test_truncated_files_are_refused(tmp_path, extension):
    image = Image.fromarray(picture(64, 64))
    path = saved(tmp_path, image, f"cut.{extension}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ImageRefused):
        load_photo(path)


def test_pixels_are_counted_before_decoding(tmp_path):
    small = io.BytesIO()
    Image.new("L", (8, 8)).save(small, "PNG")
    data = bytearray(small.getvalue())
    for side in (12_000, 60_000):  # above our limit, and above Pillow's own
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
        path = tmp_path / "bomb.png"
        path.write_bytes(bytes(data))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ImageRefused, match="megapixels"):
                load_photo(path)


def test_large_but_allowed_photos_raise_no_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = saved(tmp_path, Image.fromarray(picture(12, 12)), "large.png")
    assert load_photo(path).size == (12, 12)


def test_file_size_is_limited(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.fromarray(picture()), "photo.bmp")
    monkeypatch.setattr(photo_module, "MAX_FILE_BYTES", 100)
    with pytest.raises(ImageRefused, match="MiB"):
        load_photo(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_broken_bytes_are_read_or_refused_and_nothing_else(tmp_path, kind, edits):
    buffer = io.BytesIO()
    Image.fromarray(picture(16, 16)).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for place, value in edits:
        data[int(place * (len(data) - 1))] = value
    path = tmp_path / "broken"
    path.write_bytes(bytes(data))
    try:
        found = load_photo(path)
    except ImageRefused:
        return
    assert found.pixels.shape[2] == 3


def test_arrays_in_memory():
    rgb = picture()
    assert Photo.of(rgb).pixels is not None
    np.testing.assert_array_equal(Photo.of(rgb).pixels, rgb)
    np.testing.assert_array_equal(Photo.of(rgb[:, :, 0]).pixels, np.repeat(rgb[:, :, :1], 3, 2))
    np.testing.assert_allclose(Photo.of(rgb.astype(np.uint16) * 257).pixels, rgb, atol=1e-4)
    np.testing.assert_array_equal(Photo.of(rgb.astype(float)).rgb8, rgb)
    np.testing.assert_array_equal(Photo.of(Image.fromarray(rgb)).pixels, rgb)
    once = Photo.of(rgb)
    assert Photo.of(once) is once


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.full((4, 4, 3), -1.0),
        np.full((4, 4, 3), np.nan),
        np.zeros((4, 4, 3), np.int64),
    ],
)
def test_arrays_that_are_no_image_are_refused(array):
    with pytest.raises(ImageRefused):
        Photo.of(array)


def test_a_pil_image_that_breaks_while_it_is_decoded(tmp_path):
    path = saved(tmp_path, Image.fromarray(picture(64, 64)), "cut.png")
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as image, pytest.raises(ImageRefused, match="image"):
        Photo.of(image)


def test_real_photos_are_read(shared):
    found = load_photo(shared / "photos" / "both.png")
    assert found.pixels.shape == (224, 224, 3)
    assert found.pixels.dtype == np.uint8


# -- ranges that have to be guessed ----------------------------------------------------------


def test_floats_up_to_one_are_scaled_with_a_warning():
    rgb = picture()
    for kind in (np.float32, np.float64, np.float16):
        found = Photo.of((rgb / 255).astype(kind))
        np.testing.assert_allclose(found.pixels, rgb, atol=0.1)
        assert "0..1" in found.warnings[0]
        assert found.warnings[0] in found.notes
    assert not Photo.of(rgb.astype(float)).warnings
    mask = np.zeros((8, 8))
    mask[2:4] = 1
    assert Photo.of(mask).rgb8.max() == 255
    assert not Photo.of(np.zeros((8, 8))).warnings


def test_floats_a_little_above_one_are_ambiguous():
    with pytest.raises(ImageRefused, match=r"neither 0\.\.1 nor 0\.\.255"):
        Photo.of(np.linspace(0, 1.3, 192).reshape(8, 8, 3))
    assert Photo.of(np.linspace(0, 1.0005, 192).reshape(8, 8, 3)).pixels.max() == 255
    dark = np.zeros((8, 8))
    dark[0] = 2  # whole pixels of a dark picture
    assert Photo.of(dark).pixels.max() == 2


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3)])
def test_twelve_bits_in_sixteen_are_said(shape):
    values = np.linspace(0, 4095, math.prod(shape)).astype(np.uint16).reshape(shape)
    dark = Photo.of(values)
    assert "4095 of 65535" in dark.warnings[0]
    assert not Photo.of(values * 16).warnings
    assert dark.pixels.max() < 16  # said, not changed


def test_twelve_bits_in_a_sixteen_bit_file_are_said(tmp_path):
    values = np.linspace(0, 4095, 48).astype(np.uint16).reshape(6, 8)
    found = load_photo(saved(tmp_path, Image.fromarray(values), "deep.png"))
    assert "nearly black" in found.warnings[0]
    assert found.warnings[0] in found.notes


def signed_tiff(path, values):
    """A TIFF of signed 16-bit grey, which Pillow does not write."""
    height, width = values.shape
    data = values.astype("<i2").tobytes()
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1}
    tags |= {278: height, 279: len(data), 339: 2}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    path.write_bytes(head + data + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


def test_signed_sixteen_bit_tiff(tmp_path):
    values = np.linspace(0, 32767, 48).reshape(6, 8)
    found = load_photo(signed_tiff(tmp_path / "signed.tiff", values))
    assert found.pixels.max() == pytest.approx(255)
    assert "signed" in found.warnings[0]
    with pytest.raises(ImageRefused, match="signed grey values") as caught:
        load_photo(signed_tiff(tmp_path / "scan.tiff", values - 1000))
    assert "window" in caught.value.hint
    assert "unsigned" in caught.value.hint
