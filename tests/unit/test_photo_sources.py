"""Where photos come from: folders, patterns, standard input, videos, and formats with an extra."""

import contextlib
import glob
import io
import os
import subprocess
import sys
import zlib
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from inspector.audit.data_set import open_data_set
from inspector.cli.options import named_paths
from inspector.errors import ImageRefused, InspectorWarning, MissingExtra, UsageError
from inspector.photos import photo as photo_module
from inspector.photos import video as video_module
from inspector.photos.band_tiff import require_reader
from inspector.photos.dataset import labelled_photos, pictures, read_boxes
from inspector.photos.photo import Photo, load_photo
from inspector.photos.sources import list_folder, sources

ROOT = Path(__file__).resolve().parents[2]
HORSE = ROOT / "sample_models/images/horse_1.png"


def gradient(height=24, width=32):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 8, columns * 6, rows + columns], 2).astype(np.uint8)


def saved(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(gradient()).save(path)
    return path


def refuse(error):
    raise error


# -- folders and patterns -------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    for name in ("b.png", "a/deep/er/c.png", "a/1.jpg", ".hidden/d.png", "with space/e.png"):
        saved(tmp_path / name)
    return tmp_path


def names(folder, found):
    return [path.relative_to(folder).as_posix() for path in found]


def test_a_folder_gives_its_photos_at_any_depth(tree):
    assert names(tree, pictures([tree])) == [
        "b.png",
        "a/1.jpg",
        "a/deep/er/c.png",
        "with space/e.png",
    ]


def test_links_to_folders_are_not_followed_and_links_to_files_are(tree):
    (tree / "a/loop").symlink_to(tree, target_is_directory=True)
    (tree / "a/z.png").symlink_to(tree / "b.png")
    with pytest.warns(InspectorWarning, match=r"1 link\(s\) to folders not entered: loop"):
        found = names(tree / "a", pictures([tree / "a"]))
    assert found == ["1.jpg", "z.png", "deep/er/c.png"]


def test_what_is_left_out_is_counted_and_named(tree):
    for name in ("notes.txt", "a/clip.mp4", "a/deep/table.csv", "z.bin"):
        (tree / name).write_bytes(b"")
    said = (
        r"4 file\(s\) left out that are not photos: notes.txt, z.bin, clip.mp4 and 1 more; name a"
    )
    with pytest.warns(InspectorWarning, match=said):
        assert len(list(pictures([tree]))) == 4


@pytest.mark.parametrize(
    "named",
    [
        ["boxes.csv", "a/parts.json", "out"],
        ["link.csv", "a/../a/parts.json", "out/deep", "out/1.json"],
    ],
    ids=["names", "links and folders"],
)
def test_what_another_option_names_is_not_said_to_be_no_photo(tree, named, monkeypatch, recwarn):
    for name in ("boxes.csv", "a/parts.json", "out/deep/1.npz", "out/1.json"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"")
    (tree.parent / "link.csv").unlink(missing_ok=True)
    (tree.parent / "link.csv").symlink_to(tree / "boxes.csv")
    monkeypatch.chdir(tree)
    given = [tree.parent / n if n == "link.csv" else Path(n) for n in named]
    assert len(list(pictures([tree], given))) == 4
    assert not recwarn.list


def test_a_pattern_leaves_out_what_another_option_names(tree):
    (tree / "boxes.csv").write_bytes(b"")
    (tree / "out").mkdir()
    given = [tree / "boxes.csv", tree / "out", tree / "b.png"]
    found = names(tree, pictures([tree / "*"], given))
    assert sorted(found) == sorted(names(tree, list_folder(tree).photos))


def test_a_file_of_the_same_name_elsewhere_is_said(tree):
    for name in ("boxes.csv", "a/boxes.csv"):
        (tree / name).write_bytes(b"")
    with pytest.warns(
        InspectorWarning, match=r"1 file\(s\) left out that are not photos: boxes.csv"
    ):
        list(pictures([tree], [tree / "a/boxes.csv"]))


def test_a_named_folder_of_photos_is_listed_once_itself(tree):
    (tree / "a/notes.txt").write_bytes(b"")
    with pytest.warns(InspectorWarning, match="notes") as said:
        list(pictures([tree, tree / "a"], [tree, tree / "a"]))
    assert len(said) == 1


def test_a_table_names_photos_from_its_own_folder_too(tree):
    (tree / "boxes.csv").write_text("image,label,x0,y0,x1,y1\na/deep/er/c.png,cat,1,1,5,5\n")
    (box,) = read_boxes(tree / "boxes.csv", [tree / "a/deep/er"])
    assert box.path == tree / "a/deep/er/c.png"


def test_hidden_files_are_left_alone_like_hidden_folders(tree):
    (tree / "a/._1.jpg").write_bytes(b"\0\5\26\7")
    assert len(list(pictures([tree]))) == 4
    assert [entry.photo for entry in open_data_set(tree).entries] == names(tree, pictures([tree]))


def test_a_data_set_says_what_is_left_out_of_its_folder_like_photos_do(tree):
    for name in ("audit.toml", "notes.txt"):
        (tree / name).write_bytes(b"")
    listing = open_data_set(tree).listing
    assert listing.left_out([tree / "audit.toml"]) == [
        f"{tree}: 1 file(s) left out that are not photos: notes.txt"
    ]


def test_a_folder_of_a_class_without_photos_is_named(tree):
    (tree / "zebra").mkdir()
    assert open_data_set(tree).listing.empty == [Path("zebra")]


def test_the_command_line_names_every_file_that_is_there(tree, monkeypatch):
    monkeypatch.chdir(tree)
    for name in ("boxes.csv", "mask.png"):
        (tree / name).write_bytes(b"")

    @click.command()
    @click.argument("images", nargs=-1, type=click.Path(path_type=Path))
    @click.option("--boxes")
    @click.option("--target", multiple=True)
    @click.option("--weights", default="")  # no file, and not the folder in which the user stands
    def command(**_):
        found.extend(named_paths())

    found: list[Path] = []
    command.main(
        ["a", "--boxes", "boxes.csv", "--target", "mask:mask.png", "--target", "cat"],
        standalone_mode=False,
    )
    assert {path.name for path in found} == {"a", "boxes.csv", "mask.png"}


@pytest.mark.parametrize(
    ("pattern", "count"), [("*.png", 1), ("a/*", 2), ("**/*.png", 3), ("?.png", 1), ("[ab].png", 1)]
)
def test_a_quoted_pattern_is_expanded(tree, pattern, count):
    assert len(list(pictures([tree / pattern]))) == count


def test_a_pattern_enters_no_link_and_finds_what_a_shell_does(tmp_path, monkeypatch):
    """Two links of a folder to itself are a tree of 2^40 folders for whoever follows them."""
    for name in ("a/1.png", "a/b/2.png", "a/b/c/3.png", "a/.hidden/4.png", ".5.png", "6.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / "data" / name)
    monkeypatch.chdir(tmp_path / "data")
    patterns = ("**/*.png", "a/**/*.png", "a/**", "**/b/*.png", "**/a/**/c/**/*.png", "*/*.png")
    wanted = {p: sorted(glob.glob(p, recursive=True)) for p in patterns}  # noqa: PTH207
    for one in ("x", "y", "a/z"):
        (tmp_path / "data" / one).symlink_to(tmp_path / "data")
    for pattern in patterns[:-1]:
        files = [name for name in wanted[pattern] if Path(name).is_file()]
        assert [str(path) for path in pictures([Path(pattern)])] == files
    through = tmp_path / "data" / "x" / "**" / "6.png"  # a link that the user names is entered
    assert [path.name for path in pictures([through])] == ["6.png"]
    with pytest.raises(UsageError, match="matches no file"):
        list(pictures([Path("**/none.png")]))


def test_a_file_with_brackets_in_its_name_is_a_file(tmp_path):
    path = saved(tmp_path / "photo[1].png")
    assert list(pictures([path])) == [path]
    with pytest.raises(UsageError, match="matches no file"):
        list(pictures([tmp_path / "*.jpg"]))


def test_folders_of_class_folders_have_photos_at_any_depth(tree):
    found = [(p.path.name, p.label) for p in labelled_photos([tree])]
    assert ("c.png", "a") in found
    assert ("e.png", "with space") in found


# -- addresses and standard input -----------------------------------------------------------------


ADDRESSES = ["https://example.org/a.jpg", "HTTP://e.org/a", "s3://bucket/a.png", "FILE:///tmp/a"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_refused_as_such(address):
    for given in (address, Path(address)):
        with pytest.raises(ImageRefused, match="is an address, and nothing is fetched") as refused:
            load_photo(given)
        assert str(refused.value).startswith(address)  # with all its slashes


def test_a_second_model_is_not_an_unknown_photo(tmp_path):
    (tmp_path / "b.onnx").write_bytes((ROOT / "sample_models/resnet20.onnx").read_bytes())
    with pytest.raises(ImageRefused, match="an ONNX model: `inspector compare` takes two"):
        load_photo(tmp_path / "b.onnx")


def test_a_file_may_be_called_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "https:/a.png")
    assert load_photo("https:/a.png").size == (24, 32)


def from_stdin(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    return list(sources([Path("-")], 30, refuse))


def test_a_photo_comes_from_standard_input_once(monkeypatch):
    (found,) = from_stdin(monkeypatch, HORSE.read_bytes())
    assert (found.name, found.sha256) == ("stdin", load_photo(HORSE).sha256)
    with pytest.raises(ImageRefused, match="stdin: the file is empty"):
        from_stdin(monkeypatch, b"")
    monkeypatch.setattr(photo_module, "MAX_FILE_BYTES", 10)
    with pytest.raises(ImageRefused, match="stdin: more than"):
        from_stdin(monkeypatch, HORSE.read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(HORSE.read_bytes())))
    monkeypatch.undo()


def test_standard_input_named_twice_or_closed_is_a_usage_error(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(HORSE.read_bytes())))
    with pytest.raises(UsageError, match="twice"):
        list(sources([Path("-"), Path("-")], 30, refuse))
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="terminal"):
        list(sources([Path("-")], 30, refuse))


@pytest.mark.conformance
def test_a_pipe_that_nobody_writes_to_ends_with_the_clock(tmp_path):
    reader, writer = os.pipe()
    words = ["explain", ROOT / "sample_models/resnet20.onnx", "-", "-m", "cam", "--timeout", "3"]
    run = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "inspector", *map(str, words)],
        stdin=reader,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    os.close(reader)
    os.close(writer)
    assert (run.returncode, run.stdout) == (5, "")


# -- formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["avif", "jp2"])
def test_avif_and_jpeg_2000_are_read(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}")
    assert np.abs(load_photo(path).pixels.astype(int) - gradient()).mean() < 6
    data = path.read_bytes()
    for cut in (10, 60, len(data) // 2):
        path.write_bytes(data[:cut])
        with pytest.raises(ImageRefused):
            load_photo(path)


def test_a_turned_avif_comes_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.avif"
    Image.fromarray(gradient()).save(path, exif=exif.tobytes())
    assert load_photo(path).size == (32, 24)


def heic_head():
    return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 200


def test_without_the_extra_a_heic_photo_names_it_before_the_first(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "a.heic"
    path.write_bytes(heic_head())
    for call in (load_photo, lambda path: require_reader([path], bands=False)):
        with pytest.raises(MissingExtra, match=r"onnx-inspector\[heif\]"):
            call(path)


def test_a_heic_photo_is_read_and_a_broken_one_refused(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    path = saved(tmp_path / "a.heic")
    assert np.abs(load_photo(path).pixels.astype(int) - gradient()).mean() < 8
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageRefused):
        load_photo(path)
    path.write_bytes(heic_head())
    with pytest.raises(ImageRefused):
        load_photo(path)


# -- DICOM ----------------------------------------------------------------------------------------


def dicom(values, **tags):
    """The bytes of a DICOM file with these stored values."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = tags.pop("syntax", pydicom.uid.ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    made = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    made.Rows, made.Columns = values.shape[:2]
    made.SamplesPerPixel = 1 if values.ndim == 2 else 3
    if values.ndim == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = values.dtype.itemsize * 8
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(values.dtype.kind == "i")
    made.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    made.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(made, name, value)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def hounsfield():
    return np.arange(-1000, 600, 25, dtype=np.int16).reshape(8, 8)


WINDOW = {"RescaleSlope": 2, "RescaleIntercept": -50, "WindowCenter": 40, "WindowWidth": 401}


def test_slope_intercept_and_window_of_a_dicom_file_are_applied():
    found = Photo.of(dicom(hounsfield(), **WINDOW))
    values = hounsfield() * 2.0 - 50
    wanted = np.clip((values - 39.5) / 400 + 0.5, 0, 1) * 255
    np.testing.assert_allclose(found.pixels[:, :, 0], wanted, atol=1e-3)
    assert "window 40, 401 (linear)" in found.notes
    exact = Photo.of(dicom(hounsfield(), **WINDOW, VOILUTFunction="LINEAR_EXACT"))
    wanted = np.clip((values - 40) / 401 + 0.5, 0, 1) * 255
    np.testing.assert_allclose(exact.pixels[:, :, 1], wanted, atol=1e-3)
    soft = Photo.of(dicom(hounsfield(), **WINDOW, VOILUTFunction="SIGMOID"))
    np.testing.assert_allclose(
        soft.pixels[:, :, 2], 255 / (1 + np.exp(-4 * (values - 40) / 401)), atol=1e-3
    )


def test_monochrome1_is_inverted_and_several_windows_mean_the_first():
    plain = Photo.of(dicom(hounsfield(), **WINDOW))
    several = WINDOW | {"WindowCenter": [40, 900], "WindowWidth": [401, 5]}
    inverted = Photo.of(dicom(hounsfield(), **several, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(inverted.pixels, 255 - plain.pixels, atol=1e-3)


def test_a_dicom_file_without_a_window_is_said():
    found = Photo.of(dicom(hounsfield()))
    assert (found.pixels.min(), found.pixels.max()) == (0, 255)
    assert "names no window: -1000 .. 575" in found.warnings[0]
    flat = Photo.of(dicom(np.full((4, 5), 7, np.uint16)))
    assert not flat.pixels.any()


def test_dicom_colours_are_read():
    np.testing.assert_array_equal(Photo.of(dicom(gradient())).pixels, gradient())


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"NumberOfFrames": 120}, "120 frames"),
        ({"Rows": 40000, "Columns": 40000}, "1600 megapixels"),
        ({"Rows": 0}, "without a picture"),
        ({"Rows": 60000, "Columns": 800}, "broken or truncated"),
        ({"Rows": 60000, "Columns": 2000}, "GiB to decode"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"SamplesPerPixel": 4}, "4 values per pixel"),
        ({"syntax": "1.2.840.10008.1.2.4.90"}, "compressed"),
        ({"syntax": "1.2.840.10008.1.2.1.99"}, "deflated"),
        ({"RescaleSlope": "1e308"}, "not finite"),
    ],
)
def test_a_dicom_file_that_is_not_one_picture_is_refused(tags, said):
    data = dicom(hounsfield(), **{k: v for k, v in tags.items() if k != "syntax"})
    if "syntax" in tags:
        plain, other = (
            uid.encode() + b"\0" * (len(uid) % 2) for uid in ("1.2.840.10008.1.2.1", tags["syntax"])
        )
        assert plain in data
        data = data.replace(
            len(plain).to_bytes(2, "little") + plain, len(other).to_bytes(2, "little") + other, 1
        )
    with pytest.raises(ImageRefused, match=said):
        Photo.of(data)


def test_a_dicom_file_that_takes_more_memory_than_photos_may_is_refused(monkeypatch):
    """Run lengths make a picture of 134 megapixels, and 5 GiB of it, out of four megabytes."""
    data = dicom(hounsfield(), **WINDOW)
    height, width = hounsfield().shape
    monkeypatch.setattr(photo_module, "MAX_DECODED_BYTES", 44 * height * width)
    assert Photo.of(data).size == (height, width)
    monkeypatch.setattr(photo_module, "MAX_DECODED_BYTES", 44 * height * width - 1)
    with pytest.raises(ImageRefused, match="GiB to decode"):
        Photo.of(data)


def test_broken_dicom_files_are_read_or_refused_and_nothing_else():
    data = dicom(hounsfield(), **WINDOW)
    for cut in range(132, len(data), 97):
        with pytest.raises(ImageRefused):
            Photo.of(data[:cut])
    random = np.random.default_rng(0)
    for _ in range(30):
        bad = bytearray(data)
        for place in random.integers(132, len(data), 4):
            bad[place] = random.integers(256)
        with contextlib.suppress(ImageRefused):
            assert Photo.of(bytes(bad)).pixels.shape[2] == 3


def test_without_the_extra_a_dicom_file_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    path = tmp_path / "a.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM")
    for call in (load_photo, lambda path: require_reader([path], bands=False)):
        with pytest.raises(MissingExtra, match=r"onnx-inspector\[dicom\]"):
            call(path)


# -- videos ---------------------------------------------------------------------------------------


def film(path, frames=12, codec="mpeg4"):
    """A video whose frames are the gradient, moved by its number."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for number in range(frames):
            pixels = np.ascontiguousarray(np.roll(gradient(), number * 2, 1))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_every_nth_frame_of_a_video_is_taken(tmp_path, suffix):
    path = film(tmp_path / f"clip.{suffix}")
    found = list(sources([path], 5, refuse))
    assert [one.name for one in found] == [f"clip-frame-{n:06d}.png" for n in (0, 5, 10)]
    photos = [Photo.open(one) for one in found]
    for photo, number in zip(photos, (0, 5, 10), strict=True):
        wanted = np.roll(gradient(), number * 2, 1).astype(int)
        assert np.abs(photo.pixels - wanted).mean() < 25
    assert len({photo.sha256 for photo in photos}) == 3
    assert [one.sha256 for one in found] == [photo.sha256 for photo in photos]


def test_a_truncated_video_gives_the_frames_that_it_holds(tmp_path):
    path = film(tmp_path / "clip.mkv", frames=40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = list(sources([path], 1, refuse))
    outcomes = []
    for one in found:
        try:
            outcomes.append(Photo.open(one).size == (24, 32))
        except ImageRefused:
            outcomes.append(False)
    assert outcomes[0]
    assert len(outcomes) < 40


@pytest.mark.parametrize("data", [b"", b"no video", b"#EXTM3U\nhttps://example.org/a.ts\n"])
def test_what_is_no_video_is_refused(tmp_path, data):
    pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    for content in (data, b"\0\0\0\x18ftypisom" + data, b"RIFF\0\0\0\0AVI " + data):
        path.write_bytes(content)
        said = []
        assert list(sources([path, HORSE], 30, said.append)) == [HORSE]
        assert len(said) == 1


def test_a_video_of_too_many_frames_is_refused_before_one_is_decoded(tmp_path, monkeypatch):
    path = film(tmp_path / "clip.mp4")
    monkeypatch.setattr(video_module, "MOST_FRAMES", 3)
    with pytest.raises(UsageError, match="more than 3 frames would be taken"):
        list(sources([path], 2, refuse))
    assert len(list(sources([path], 4, refuse))) == 3


def test_frames_beyond_the_limit_of_pixels_are_refused(tmp_path, monkeypatch):
    path = film(tmp_path / "clip.mp4")
    monkeypatch.setattr(video_module, "MAX_PIXELS", 100)
    with pytest.raises(ImageRefused, match="frames of 32 x 24"):
        list(sources([path], 2, refuse))


def test_without_the_extra_a_video_names_it_and_elsewhere_it_is_told_from_photos(
    tmp_path, monkeypatch
):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 100)
    with pytest.raises(ImageRefused, match="not a photo but a video"):
        load_photo(path)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"onnx-inspector\[video\]"):
        list(sources([path], 30, refuse))


@pytest.mark.conformance
def test_a_video_is_explained_frame_by_frame_with_a_sheet_over_time(tmp_path):
    film(tmp_path / "clip.mp4")
    words = [ROOT / "sample_models/resnet20.onnx", "clip.mp4", "-m", "cam", "--every", "4"]
    run = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "inspector", "explain", *map(str, words), "-o", "out"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {f"clip-frame-{n:06d}.json" for n in (0, 4, 8)} | {"clip.timeline.png"} <= made


def test_a_png_that_claims_a_thousand_million_pixels_is_refused_unread(tmp_path):
    def chunk(kind, data):
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = (40000).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    for given in (data, io.BytesIO(data)):
        with pytest.raises(ImageRefused, match="megapixels"):
            Photo.of(given)
