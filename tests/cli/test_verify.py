"""``inspector verify`` as a user calls it."""

import json

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INSPECTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_table_a_verdict_and_a_document(inspector, samples, tmp_path, cache):
    done = inspector(
        "verify",
        samples / "resnet20.onnx",
        samples / "images" / "cat_1.png",
        "-o",
        tmp_path / "out" / "resnet20.json",
    )
    assert done.returncode == 0, done.stderr
    assert "verdict: PASS" in done.stdout
    assert "cat_1.png" in done.stdout
    for name in ("forward", "gradient", "gradient graph", "cam residual", "rule guided"):
        assert f" {name} " in done.stdout
    document = json.loads((tmp_path / "out" / "resnet20.json").read_text())
    assert document["verdict"] == "pass"
    assert document["inputs"][2]["sha256"]
    assert len(list(cache.glob("certificate-*.json"))) == 2  # of the twin, of the gradient graph


def test_json_alone(inspector, samples):
    done = inspector("verify", samples / "zfnet.onnx", "--json", "--target", "cat")
    document = json.loads(done.stdout)
    assert document["scope"] == "full"
    assert document["target"] == "cat, as asked for"


def test_usage_and_refusals(inspector, samples, tmp_path):
    model = samples / "zfnet.onnx"
    assert inspector("verify", model, "--target", "top2").returncode == 2
    assert inspector("verify", model, tmp_path / "none.png").returncode == 4
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model at all")
    assert inspector("verify", broken).returncode == 3


def test_a_failing_check_is_exit_status_1(samples, monkeypatch, capsys):
    from dataclasses import replace

    import inspector.cli
    from inspector.cli import supervise
    from inspector.verify import Check, checks

    original = checks.certify

    def failing(*arguments, **options):
        found = original(*arguments, **options)
        wrong = Check("forward", "fail", "Relu node 'r\x1b[31m' differs")
        return replace(found, checks=(wrong, *found.checks[1:]))

    monkeypatch.setattr(checks, "certify", failing)
    monkeypatch.setattr(supervise, "_can_fork", lambda: False)
    assert inspector.cli.run(["verify", str(samples / "zfnet.onnx")]) == 1
    shown = capsys.readouterr().out
    assert "verdict: FAIL" in shown
    assert "\x1b[31m' differs" not in shown


def test_a_photo_of_which_little_is_seen_is_said(inspector, samples, tmp_path):
    from PIL import Image

    Image.new("RGB", (160, 40), (90, 120, 60)).save(tmp_path / "wide.png")
    recipe = ("--set", "resize=crop")
    done = inspector("verify", samples / "zfnet.onnx", tmp_path / "wide.png", *recipe)
    assert "wide.png: the network sees 25% of the photo" in " ".join(done.stderr.split())
