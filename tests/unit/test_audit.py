"""Audits: rows, engine, clusters, interventions, command; on networks that cheat or do not."""

import json

import audit_scenes as scenes
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from inspector.audit.data_set import Entry, open_data_set
from inspector.audit.engines import local
from inspector.audit.evidence_places import Marks, evidence_places, grid_of, marks_of
from inspector.audit.findings.clusters import find_clusters
from inspector.audit.numbers import faithful
from inspector.audit.numbers.summary import calibration, metrics, suspicious
from inspector.audit.predicted import Predicted
from inspector.audit.rows import GRID, Asked, Auditor
from inspector.audit.run import AuditOptions, audit
from inspector.errors import MethodRefused, UnknownTarget, UsageError
from inspector.opening import Opening
from inspector.passes.journal import Journal
from inspector.photos.dataset import class_indices
from inspector.photos.geometry import Geometry

SETTINGS = ("mean=0", "std=1")
FILES = {
    *("report.json", "report.html", "rows.csv", "rows.parquet", "junit.xml", "findings.sarif"),
    *("model-card.cdx.json", "annex-iv.md", "thumbnails"),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    place = tmp_path_factory.mktemp("audit")
    for cheats in (True, False):
        scenes.saved(place, cheats=cheats)
    scenes.folder(place / "data")
    return place


def opening(scene, name="cheating"):
    return Opening(scene / f"{name}.onnx", overrides=SETTINGS)


@pytest.fixture(scope="module")
def report(scene):
    options = AuditOptions(workers=1, fail_if=("top1 < 0.5", "findings.confirmed > 0"))
    return audit(opening(scene), scene / "data", scene / "out", options)


# -- rows -----------------------------------------------------------------------------------------


def places_of(heat, geometry, entry):
    """Where the evidence of one photo lies, measured beside that of another one of its size."""
    marks = [marks_of(entry, geometry), Marks()]
    return evidence_places([heat, heat[::-1] + 1], [geometry] * 2, marks)[0]


def test_shares_of_evidence_in_boxes_and_on_the_border():
    geometry = Geometry((40, 20), (40, 20), (1.0, 1.0), (0.0, 0.0))
    heat = np.zeros((40, 20))
    heat[10:20, 5:10] = 1
    heat[0, 0] = 50
    box = Entry("a", None, "dog", (annotated((10, 5, 20, 10)),))
    found = places_of(heat, geometry, box)
    assert found["inside_box"] == 0.5
    assert found["box_area"] == 50 / 800
    assert found["border"] == 0.5
    assert found["pointing"] is False
    assert found["pointing_centre"] is False
    assert (found["centre_y"], found["centre_x"]) == pytest.approx((7.75 / 40, 4.0 / 20))
    assert found["empty"] is False


def annotated(corners, relative=False):
    from inspector.audit.data_set.described import Annotated

    return Annotated("dog", corners, relative)


def test_boxes_follow_the_photo_onto_the_input():
    """A letterboxed photo: half of the input's rows show it, and its own share counts."""
    geometry = Geometry((20, 40), (40, 40), (1.0, 1.0), (10.0, 0.0))
    heat = np.zeros((40, 40))
    heat[10:20] = 1
    heat[:10] = 7  # on the border that is not a photo
    entry = Entry("a", None, "dog", (annotated((0, 0, 0.5, 1), relative=True),))
    found = places_of(heat, geometry, entry)
    assert found["inside_box"] == 1
    assert found["box_area"] == 0.5


def test_small_maps_are_the_photo_s_part_of_the_input():
    heat = np.zeros((64, 64))
    heat[16:20, 32:36] = 1
    cells = np.frombuffer(bytes.fromhex(grid_of(heat, (0, 0, 64, 64))), np.uint8)
    assert np.argwhere(cells.reshape(GRID, GRID)).tolist() == [[4, 8]]
    assert grid_of(np.zeros((8, 8)), (0, 0, 8, 8)) == ""


@pytest.mark.parametrize("seed", range(12))
def test_small_maps_are_those_of_a_box_filter(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 80, 2)
    ends = [sorted(rng.uniform(0, n, 2)) if seed % 3 else (0.0, float(n)) for n in (height, width)]
    (top, bottom), (left, right) = ends
    heat = rng.exponential(size=(height, width))
    picture = Image.fromarray(heat.astype(np.float32))
    box = (left, top, right, bottom)
    cells = np.asarray(picture.resize((GRID, GRID), Image.Resampling.BOX, box=box), np.float64)
    found = np.frombuffer(bytes.fromhex(grid_of(heat, (top, left, bottom, right))), np.uint8)
    assert np.abs(found.reshape(GRID, GRID) - 255 * cells / cells.max()).max() < 0.5 + 1e-4


def test_a_photo_that_cannot_be_read_is_one_row(scene, tmp_path):
    Image.fromarray(scenes.photo(1, (220, 60, 60), marked=False)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    auditor = Auditor(Asked(opening(scene)))
    found = list(auditor.rows(open_data_set(tmp_path).entries))
    assert [row["photo"] for row in found] == ["a.png", "b.png"]
    assert found[0]["refused"] is None
    assert "b.png" in found[1]["refused"]


def test_a_label_of_which_every_photo_is_refused_stays_a_class_of_the_model(scene, tmp_path):
    """Of it nothing is known: it was said to be no class of the model."""
    photo = Image.fromarray(scenes.photo(1, (220, 60, 60), marked=False))
    for name in ("other/a.png", "thing/b.png", "dog/c.png"):
        (tmp_path / name).parent.mkdir()
        photo.save(tmp_path / name)
    (tmp_path / "thing" / "b.png").write_bytes(b"")
    options = AuditOptions(workers=1, thumbnails=False)
    found = audit(opening(scene), tmp_path, tmp_path / "out", options)
    (said,) = [one for one in found.contents["warnings"] if "not classes" in one]
    assert said == "labels that are not classes of the model: dog"


def test_a_mask_of_another_size_is_that_photo_s_refusal(scene, tmp_path):
    Image.fromarray(scenes.photo(1, (220, 60, 60), marked=False)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "m.png")
    entry = Entry("a.png", tmp_path / "a.png", mask=tmp_path / "m.png")
    (row,) = Auditor(Asked(opening(scene))).rows([entry])
    assert "the mask has 10x10 pixels and the photo 48x48" in row["refused"]


def test_a_transparent_mask_is_that_photo_s_refusal(scene, tmp_path):
    Image.fromarray(scenes.photo(1, (220, 60, 60), marked=False)).save(tmp_path / "a.png")
    mask = np.full((48, 48, 4), 255, np.uint8)
    mask[:, 24:, 3] = 0
    Image.fromarray(mask).save(tmp_path / "m.png")
    entry = Entry("a.png", tmp_path / "a.png", mask=tmp_path / "m.png")
    (row,) = Auditor(Asked(opening(scene))).rows([entry])
    assert "transparent" in row["refused"]


def test_annotations_of_another_size_are_that_photo_s_refusal(scene, tmp_path):
    Image.fromarray(scenes.photo(1, (220, 60, 60), marked=False)).save(tmp_path / "a.png")
    entries = [Entry("a.png", tmp_path / "a.png", size=size) for size in ((48, 48), (96, 96))]
    one, other = Auditor(Asked(opening(scene))).rows(entries)
    assert one["refused"] is None
    assert "it has 48x48 pixels, and its annotations are of 96x96" in other["refused"]


def test_boxes_and_masks_outside_of_the_photo_say_nothing(scene, tmp_path):
    Image.fromarray(scenes.photo(1, (220, 60, 60), marked=False)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(tmp_path / "m.png")
    entry = Entry(
        "a.png", tmp_path / "a.png", None, (annotated((60, 60, 90, 90)),), tmp_path / "m.png"
    )
    (row,) = Auditor(Asked(opening(scene))).rows([entry])
    assert row["refused"] is None
    for name in ("inside_box", "box_area", "pointing", "inside_mask", "mask_area"):
        assert row[name] is None


def test_cam_of_a_head_that_rules_it_out_is_refused_before_the_first_photo(tmp_path):
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    asked = AuditOptions(method="cam", workers=1, thumbnails=False)
    with pytest.raises(MethodRefused, match="CAM is not exact for this head"):
        audit(Opening("sample_models/zfnet.onnx"), tmp_path, tmp_path / "out", asked)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_labels_are_called_as_the_model_calls_its_classes(scene, tmp_path):
    (tmp_path / "t.csv").write_text(
        "image,label,x0,y0,x1,y1\na.png,THING,,,,\nb.png,0,1,1,9,9\nc.png,dog,60,60,90,90\n"
    )
    for name in "abc":
        photo = Image.fromarray(scenes.photo(1, (220, 60, 60), marked=False))
        photo.save(tmp_path / f"{name}.png")
    options = AuditOptions(workers=1, thumbnails=False, fail_if=("class.thing.top1 < 0.5",))
    found = audit(opening(scene), tmp_path / "t.csv", tmp_path / "out", options)
    assert found.contents["data"]["classes"] == {"dog": 1, "thing": 2}
    assert found.contents["class"]["thing"]["top1"]["photos"] == 2
    assert found.contents["warnings"][-5:] == [
        "labels that are not classes of the model: dog",
        "1 of 2 classes of the model are shown by no photo: other",
        (
            "photos with the content of another one, which intervals count twice: b.png (as "
            "a.png), c.png (as a.png)"
        ),
        "photos with the content of another one and another label: c.png (dog; a.png: thing)",
        "no box lies on what the network sees of a photo: c.png",
    ]


# -- summary --------------------------------------------------------------------------------------


def test_calibration_error_by_hand():
    given = [
        {"probability": 0.95, "correct": True},
        {"probability": 0.91, "correct": False},
        {"probability": 0.55, "correct": True},
    ]
    found = calibration(given)
    assert found["error"] == pytest.approx((2 * abs(0.93 - 0.5) + abs(0.55 - 1)) / 3)
    assert found["bins"][9]["photos"] == 2
    assert calibration([{"probability": None, "correct": True}]) is None


def test_metrics_leave_out_what_no_photo_has():
    found = metrics([{"correct": True, "inside_box": None}, {"correct": False}])
    assert found["top1"]["value"] == 0.5
    assert found["top1"]["low"] < 0.5 < found["top1"]["high"]
    assert found["inside_box"] is None


def test_intervals_of_shares_stay_between_0_and_1():
    found = metrics([{"inside_box": value} for value in (0.0, 0.0, 1.0)])
    assert (found["inside_box"]["low"], found["inside_box"]["high"]) == (
        0,
        pytest.approx(0.987, abs=0.01),
    )


def test_photos_to_look_at_are_ranked():
    sure = {"photo": "a", "probability": 0.99, "correct": False, "predicted": "x", "label": "y"}
    fine = {"photo": "b", "probability": 0.99, "correct": True}
    outside = {"photo": "c", "inside_box": 0.01, "box_area": 0.5}
    found = suspicious([fine, sure, outside])
    assert [one["photo"] for one in found] == ["a", "c"]
    assert found[0]["reasons"] == ["wrong and sure: x 99%, labelled y"]


def test_of_several_methods_the_first_is_measured_and_all_are_pictures(scene, tmp_path):
    auditor = Auditor(Asked(opening(scene), ("grad-cam", "cam"), thumbnails=tmp_path / "pictures"))
    entries = open_data_set(scene / "data").entries[:1]
    one = next(auditor.rows(entries))
    assert one["method"] == "grad-cam"
    assert one["heats"]["grad-cam"] == one["heat"]
    assert list(one["heats"]) == ["grad-cam", "cam"]
    assert all((tmp_path / path).is_file() for path in one["heats"].values())
    alone = next(Auditor(Asked(opening(scene), "grad-cam")).rows(entries))
    measured = ("predicted", "border", "entropy", "grid", "inside_box")
    assert [one[name] for name in measured] == [alone[name] for name in measured]


def test_a_group_that_is_called_like_a_column_of_the_rows_keeps_its_values(scene, tmp_path):
    names = ("image", "label", "method", "data_method", "site")
    lines = [",".join(names)]
    lines += [f"data/thing/{n:03}.png,thing,{'AB'[n % 2]},x,{'CD'[n % 2]}" for n in range(6)]
    table = scene / "groups.csv"
    table.write_text("\n".join(lines))
    options = AuditOptions(
        workers=1, thumbnails=False, fail_if=("group.data_data_method.A.top1 < 2",)
    )
    with pytest.raises(UsageError, match="always fails"):
        audit(opening(scene), table, tmp_path / "out", options)
    options = AuditOptions(workers=1, thumbnails=False)
    found = audit(opening(scene), table, tmp_path / "out", options)
    assert set(found.contents["group"]) == {"data_data_method", "data_method", "site"}
    assert set(found.contents["group"]["data_data_method"]) == {"A", "B"}
    assert {row["method"] for row in found.rows} == {"grad-cam"}
    assert "the column 'method' of the table is called 'data_data_method' here" in str(
        found.contents["warnings"]
    )


# -- engine ---------------------------------------------------------------------------------------


@pytest.mark.conformance
def test_rows_are_the_same_from_one_process_and_from_two(scene):
    auditor = Auditor(Asked(opening(scene)))
    entries = open_data_set(scene / "data").entries[:24]
    one, two = (local.audit_rows(auditor, entries, workers=n, journal=Journal()) for n in (1, 2))
    for row in (*one, *two):
        row.pop("seconds")
    assert one == two
    assert [row["photo"] for row in one] == [entry.photo for entry in entries]


@pytest.mark.conformance
def test_a_photo_that_takes_its_process_down_is_one_row(scene):
    deadly = scenes.Deadly(scene / "cheating.onnx", overrides=SETTINGS)
    auditor = Auditor(Asked(opening(scene)))
    auditor.asked = Asked(deadly)  # what the other processes open
    entries = open_data_set(scene / "data" / "thing").entries[:20]
    found = local.audit_rows(auditor, entries, workers=2, journal=Journal())
    assert [row["photo"] for row in found if row["refused"]] == ["003.png"]
    assert len(found) == 20


def test_batches_begin_at_the_same_places_whatever_was_done_before():
    entries = [Entry(str(n), None) for n in range(20)]
    done = Journal()
    for place in (0, 1, 2, 3, 4, 5, 6, 7, 9, 19):
        done.keep(str(place), {})
    found = local._batches(entries, 8, done)
    assert [(start, len(batch)) for start, batch in found] == [(8, 8), (16, 4)]


def test_an_interrupted_run_goes_on_and_ends_in_the_same_rows(scene, tmp_path, monkeypatch, report):
    keep, rows_of, kept, seen = Journal.keep, Auditor.rows, [], []

    def cut_short(journal, key, row):
        if len(kept) == 40:
            raise KeyboardInterrupt
        kept.append(key)
        keep(journal, key, row)

    options = AuditOptions(workers=1)
    monkeypatch.setattr(Journal, "keep", cut_short)
    with pytest.raises(KeyboardInterrupt):
        audit(opening(scene), scene / "data", tmp_path, options)
    monkeypatch.setattr(Journal, "keep", lambda j, key, row: kept.append(key) or keep(j, key, row))
    monkeypatch.setattr(Auditor, "rows", lambda a, own: seen.append(len(own)) or rows_of(a, own))
    audit(opening(scene), scene / "data", tmp_path, options)
    assert sum(seen) == 80 - 32  # the whole batch is not computed again
    assert kept == [str(place) for place in range(80)]  # no photo twice
    names = {path.name for path in tmp_path.iterdir()}
    assert names == FILES
    for name in ("rows.csv", "rows.parquet"):
        assert (tmp_path / name).read_bytes() == (scene / "out" / name).read_bytes()
    assert report.passed is False


def test_drop_and_increase_by_hand(scene, monkeypatch):
    auditor = Auditor(Asked(opening(scene)))
    entries = open_data_set(scene / "data").entries[-1:]
    (row,) = auditor.rows(entries)
    image, heat = auditor.heat(entries[0])
    found = faithful.faithfulness_of(auditor, entries, [row], 1, 0)
    own = np.stack([image, image * (heat / heat.max())]).astype(np.float32)
    whole, kept = faithful.class_probabilities(auditor.opened, own, row["index"])
    assert row["drop"] == pytest.approx(max(0, whole - kept) / whole, abs=1e-6)
    assert row["increase"] is bool(kept > whole)
    assert found["drop"]["map"]["value"] == pytest.approx(row["drop"], abs=1e-6)
    assert set(found["increase"]) == {"map", "random", "edges", "centre"}


@pytest.mark.conformance
def test_the_maps_are_more_faithful_than_maps_that_know_nothing(scene, tmp_path):
    options = AuditOptions(workers=1, thumbnails=False, faithfulness=8)
    found = audit(opening(scene, "honest"), scene / "data" / "other", tmp_path, options)
    measured = found.contents["faithfulness"]
    for name in ("random", "edges", "centre"):
        assert measured["deletion"]["map"]["value"] < measured["deletion"][name]["value"]
        assert measured["insertion"]["map"]["value"] > measured["insertion"][name]["value"]
    assert measured["deletion"]["map"]["photos"] == 8
    assert sum(row["deletion"] is not None for row in found.rows) == 8


# -- findings -------------------------------------------------------------------------------------


def test_a_mark_in_the_corner_is_found_and_proved(report):
    found, *rest = report.contents["findings"]
    assert not any(one["confirmed"] for one in rest)
    assert (found["rule"], found["level"], found["confirmed"]) == ("shared-region", "error", True)
    top, left, bottom, right = found["region"]
    size, mark = scenes.SIZE, scenes.MARK
    assert top <= 1 / size + 1 / GRID
    assert right >= 1 - 2 / GRID
    assert bottom <= (mark + 2) / size + 1 / GRID
    assert left >= 1 - (mark + 2) / size - 1 / GRID
    assert set(found["photos"]) == {f"thing/{i:03}.png" for i in range(16)}
    pasted = next(one for one in found["interventions"] if one["kind"] == "paste")
    assert pasted["excess"]["low"] > 0.1
    assert "pasted elsewhere, it rises by" in found["sentence"]


def test_a_network_that_does_not_cheat_has_no_confirmed_finding(scene, tmp_path):
    options = AuditOptions(workers=1, thumbnails=False)
    found = audit(opening(scene, "honest"), scene / "data", tmp_path, options)
    assert not any(one["confirmed"] for one in found.contents["findings"])
    assert found.passed is None


def test_two_places_are_two_clusters_and_groups_are_named():
    rng, at = np.random.default_rng(0), np.arange(GRID)

    def grid(centre):
        y, x = rng.normal(centre, 0.6, 2)
        cells = np.exp(-((at[:, None] - y) ** 2 + (at - x) ** 2) / 4)
        return bytes(np.rint(255 * cells / cells.max()).astype(np.uint8)).hex()

    given = [{"photo": f"{i}", "predicted": "dog", "grid": grid(3), "site": "a"} for i in range(20)]
    given += [
        {"photo": f"{i}", "predicted": "dog", "grid": grid(12), "site": "b"} for i in range(20, 50)
    ]
    clusters, of_row = find_clusters(given, ["site"], 0)
    assert [cluster["photos"] for cluster in clusters] == [30, 20]
    assert clusters[0]["shared"][0]["what"] == "site = b"
    top, left, bottom, right = clusters[1]["region"]
    assert top < 3 / 16 < 4 / 16 < bottom < 8 / 16
    assert left < 3 / 16 < 4 / 16 < right < 8 / 16
    assert {of_row[i] for i in range(20)} == {"dog-2"}


# -- the report and the command -------------------------------------------------------------------


def test_thresholds_are_checked_against_the_report(report):
    first, second = report.contents["thresholds"]
    assert (first["failed"], second["failed"]) == (False, True)
    assert report.contents["verdict"]["passed"] is False
    assert list(report.contents)[:5] == ["schema", "program", "run", "verdict", "thresholds"]


def test_the_report_of_another_run_is_not_replaced(scene, tmp_path):
    (tmp_path / "report.json").write_text('{"run": {"identity": "other"}}')
    with pytest.raises(UsageError, match="another run"):
        audit(opening(scene), scene / "data", tmp_path, AuditOptions(workers=1))


def test_wrong_names_are_refused_before_a_photo_is_opened(scene, tmp_path, monkeypatch):
    def opened(*_, **__):
        raise AssertionError("a photo was audited")

    monkeypatch.setattr(Auditor, "rows", opened)
    for text in ("topp1 < 0.8", "class.horse.top1 < 0.8"):
        with pytest.raises(UsageError):
            audit(opening(scene), scene / "data", tmp_path, AuditOptions(fail_if=(text,)))
    # Photos without labels: no class will ever have a number.
    options = AuditOptions(fail_if=("class.thing.top1 < 0.8",))
    with pytest.raises(UsageError, match="names no classes"):
        audit(opening(scene), scene / "data" / "thing", tmp_path, options)


def test_the_command_ends_with_status_1_where_a_threshold_is_not_met(scene, tmp_path):
    from inspector.cli.audit import command

    arguments = [
        str(scene / "cheating.onnx"),
        str(scene / "data"),
        *("-o", str(tmp_path), "--workers", "1", "--no-thumbnails"),
        *("--set", SETTINGS[0], "--set", SETTINGS[1]),
        *("--fail-if", "findings.confirmed > 0"),
    ]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.return_value == 1, result.output
    assert "F1 error (confirmed)" in result.output
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["data"]["classes"] == {"other": 40, "thing": 40}
    assert not (tmp_path / "thumbnails").exists()


def test_folders_that_are_called_by_wordnet_ids_are_classes(scene, tmp_path):
    """As ImageNet's own are, whose ids stand in front of the names."""
    for label, number in (("n02099601", 1), ("n02123045", 2)):
        folder = tmp_path / "val" / label
        folder.mkdir(parents=True)
        photo = Image.fromarray(scenes.photo(number, (220, 60, 60), marked=False))
        photo.save(folder / "a.png")
    (tmp_path / "names.txt").write_text("n02099601 thing\nn02123045 other, tabby\n")
    path = scene / "cheating.onnx"
    asked = Opening(path, labels=tmp_path / "names.txt", overrides=SETTINGS)
    options = AuditOptions(workers=1, thumbnails=False)
    found = audit(asked, tmp_path / "val", tmp_path / "out", options)
    assert found.contents["data"]["classes"] == {"other, tabby": 1, "thing": 1}
    assert [row["correct"] for row in found.rows] == [True, False]


def test_names_are_one_however_their_letters_are_composed(scene, tmp_path):
    """macOS hands out decomposed names of folders; gates and labels are typed composed."""
    for name, number in (("Ka\u0308fer", 1), ("Thing", 2)):
        (tmp_path / "data" / name).mkdir(parents=True)
        photo = Image.fromarray(scenes.photo(number, (220, 60, 60), marked=False))
        photo.save(tmp_path / "data" / name / "a.png")
    gates = ("class.K\u00e4fer.entropy > 0.5", "class.Ka\u0308fer.entropy > 0.5")
    options = AuditOptions(workers=1, thumbnails=False, fail_if=gates)
    found = audit(opening(scene), tmp_path / "data", tmp_path / "out", options)
    assert list(found.contents["data"]["classes"]) == ["K\u00e4fer", "thing"]
    assert class_indices("Ka\u0308fer", ("dog", "k\u00e4fer"), 2) == (1,)
    assert class_indices("ka\u0308fer", ("dog", "Ka\u0308fer"), 2) == (1,)


def test_photos_of_several_labels(tmp_path):
    """Of sigmoids that do not exclude each other: a share above 1, and classes called missing."""
    rng = np.random.default_rng(0)
    onnx.save(scenes.network(cheats=False, ends="Sigmoid"), tmp_path / "model.onnx")
    for name in "ab":
        pixels = rng.integers(0, 255, (48, 48, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "t.csv").write_text("image,label,bbox\na.png,thing|other,1\nb.png,other|thing,2\n")
    options = AuditOptions(workers=1, thumbnails=False)
    asked = Opening(tmp_path / "model.onnx", overrides=SETTINGS)
    found = audit(asked, tmp_path / "t.csv", tmp_path / "out", options)
    assert all(row["correct"] and 0 < row["label_probability"] <= 1 for row in found.rows)
    said = " ".join(found.contents["warnings"])
    assert "shown by no photo" not in said
    assert "boxes in the one column 'bbox' are not read" in said
    (tmp_path / "t.csv").write_text("image,thing,other\na.png,1,0\nb.png,1,1\n")
    found = audit(asked, tmp_path / "t.csv", tmp_path / "other", options)
    said = " ".join(found.contents["warnings"])
    assert "called like classes of the model are groups: thing, other" in said


def _numbers(values, palette=None):
    size, data = values.shape[::-1], values.astype(np.uint8).tobytes()
    made = Image.frombytes("L" if palette is None else "P", size, data)
    if palette is not None:
        made.putpalette(palette + [0] * (768 - len(palette)))
    return made


VOC_COLOURS = [0, 0, 0, 128, 0, 0, 0, 64, 0] + [0] * (3 * 252) + [224, 224, 192]


@pytest.mark.parametrize(
    "kind", ["white", "ones", "classes", "palette", "white first", "grey palette"]
)
def test_masks_of_white_or_of_numbers_of_classes(scene, tmp_path, kind):
    """Masks of classes were dark pictures, of which nothing was inside, without a word."""
    Image.fromarray(scenes.photo(1, (220, 60, 60), marked=False)).save(tmp_path / "a.png")
    inside = np.zeros((48, 48), int)
    inside[12:24, 24:48] = 1
    numbers = inside * np.where(np.arange(48) < 36, 1, 2)
    numbers[0] = 255
    made = {
        "white": _numbers(inside * 255),
        "ones": _numbers(inside),
        "classes": _numbers(inside * 17),
        "palette": _numbers(numbers, VOC_COLOURS),
        "white first": _numbers(1 - inside, [255, 255, 255, 0, 0, 0]),
        "grey palette": _numbers(inside * 255, [v for v in range(256) for _ in range(3)]),
    }[kind]
    made.save(tmp_path / "m.png")
    entry = Entry("a.png", tmp_path / "a.png", mask=tmp_path / "m.png")
    (row,) = Auditor(Asked(opening(scene))).rows([entry])
    assert row["mask_area"] == pytest.approx(12 * 24 / 48**2)


def test_a_photo_without_scores_is_refused_and_not_those_beside_it(scene):
    opened = Auditor(Asked(opening(scene))).opened
    predicted = Predicted(opened.scores, opened.class_labels)
    scores = np.array([[2.0, 1.0], [np.nan, 1.0], [0.0, 3.0]])
    one, none, other = predicted.rows(["other", None, "other"], scores)
    assert isinstance(none, UnknownTarget)
    assert [one["correct"], other["correct"]] == [False, True]
    assert one == predicted.rows(["other"], scores[:1])[0]
    assert one["label_probability"] == pytest.approx(1 - one["probability"])
