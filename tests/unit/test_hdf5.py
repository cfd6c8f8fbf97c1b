"""HDF5 files that name other files are refused before a framework opens them."""

import zipfile

import numpy as np
import pytest

from converters.errors import ConversionFailed
from converters.hdf5 import refuse_other_files

h5py = pytest.importorskip("h5py")


def good(file):
    file.create_group("layers/conv").create_dataset("kernel", data=np.ones((3, 3)))
    file["again"] = file["layers"]  # a circle, by a second name
    file["layers/conv/up"] = file["layers"]
    file["soft"] = h5py.SoftLink("/layers/conv")
    file["hanging"] = h5py.SoftLink("/nowhere")


def external_link(file):
    good(file)
    file["layers/secret"] = h5py.ExternalLink("/etc/hostname.h5", "/data")


def external_storage(file):
    good(file)
    file.create_dataset("layers/secret", (8,), "u1", external=[("/etc/hostname", 0, 8)])


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "data", (4,))  # noqa: S108 - never opened
    file.create_virtual_dataset("layers/secret", layout)


def h5(tmp_path, fill):
    path = tmp_path / "net.h5"
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def keras(tmp_path, fill):
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(h5(tmp_path, fill), "model.weights.h5")
    return path


@pytest.mark.parametrize("build", [h5, keras])
@pytest.mark.parametrize("fill", [external_link, external_storage, virtual])
def test_other_files_are_refused_by_name(tmp_path, build, fill):
    with pytest.raises(ConversionFailed, match=r"lies in other files: /(layers|again)/secret \("):
        refuse_other_files(build(tmp_path, fill))


@pytest.mark.parametrize("build", [h5, keras])
def test_a_whole_file_passes_whatever_its_links_inside(tmp_path, build):
    refuse_other_files(build(tmp_path, good))


def test_a_damaged_file_is_refused(tmp_path):
    path = h5(tmp_path, good)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ConversionFailed, match="cannot be read"):
        refuse_other_files(path)
