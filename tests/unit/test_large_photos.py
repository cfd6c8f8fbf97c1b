"""Large photos: in strips, one at a time, under a cap on the bytes of all stages."""

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from inspector.errors import ImageRefused
from inspector.photos import photo, scaling
from inspector.photos.photo import load_photo
from inspector.photos.scaling import scaled


def png(width, height, *, bits, colour, channels, value=0x5A):
    """A PNG of one value; a megabyte for a hundred million pixels."""
    row = b"\0" + bytes([value]) * (width * channels * bits // 8)
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_what_takes_too_many_bytes_is_refused_by_the_header(tmp_path):
    path = tmp_path / "deep.png"
    path.write_bytes(png(11_000, 11_000, bits=16, colour=6, channels=4))
    with pytest.raises(ImageRefused, match=r"121 megapixels of 16 bits per channel take 2\.3 GiB"):
        load_photo(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "I;16", "F"])
def test_strips_give_the_same_pixels(mode, tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    values = rng.integers(0, 256, (37, 23, 4)).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (37, 23)).astype(np.uint16))
    elif mode == "F":
        image = Image.fromarray(rng.random((37, 23)).astype(np.float32))
    else:
        image = Image.fromarray(values, "RGBA").convert("RGB" if mode == "CMYK" else "RGBA")
        image = image.convert("RGB").convert(mode) if mode in ("P", "1") else image.convert(mode)
    path = tmp_path / ("photo.tiff" if mode in ("CMYK", "F", "I;16") else "photo.png")
    image.save(path)
    whole = load_photo(path)
    monkeypatch.setattr(photo, "_BAND", 100)
    strips = load_photo(path)
    assert strips.notes == whole.notes
    assert np.array_equal(strips.pixels, whole.pixels)
    assert strips.pixels.dtype == whole.pixels.dtype


def test_strips_of_sixteen_bits(tmp_path, monkeypatch):
    path = tmp_path / "deep.png"
    path.write_bytes(png(30, 20, bits=16, colour=2, channels=3, value=0x81))
    monkeypatch.setattr(photo, "_BAND", 70)
    found = load_photo(path)
    assert found.pixels.dtype == np.float32
    assert np.allclose(found.pixels, 0x8181 / 257)


def test_one_large_photo_is_decoded_at_a_time(monkeypatch):
    monkeypatch.setattr(photo, "_LARGE", 1000)
    decoded, most, lock = [], [0], threading.Lock()
    before = photo._decoded

    def counting(image, data):
        with lock:
            decoded.append(image)
            most[0] = max(most[0], len(decoded))
        try:
            return before(image, data)
        finally:
            with lock:
                decoded.pop()

    monkeypatch.setattr(photo, "_decoded", counting)
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300)).save(buffer, "PNG")
    threads = [
        threading.Thread(target=lambda: photo._decode(Image.open(io.BytesIO(buffer.getvalue()))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


@pytest.mark.parametrize("how", [Image.Resampling.BICUBIC, Image.Resampling.NEAREST])
@pytest.mark.parametrize("grey", [False, True])
def test_scaling_channel_by_channel_is_the_same_to_the_bit(how, grey, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (211, 97, 3)).astype(np.uint8)
    whole = scaled(pixels, (40, 33), how, grey=grey)
    monkeypatch.setattr(scaling, "_LARGE", 0)
    assert np.array_equal(scaled(pixels, (40, 33), how, grey=grey), whole)
