"""Gates of the audit: what they read, refuse, and say of a report."""

import copy
import itertools
import random
import re

import pytest
from audit_documents import audit_document

from inspector.audit.gates import GATES, Names, check, parse, read_gates, verdict
from inspector.audit.gates.grammar import DEPTH, LENGTH
from inspector.audit.gates.names import METRICS
from inspector.audit.numbers.summary import metrics
from inspector.errors import UsageError
from inspector.render.audit_facts import LABELS

NAMES = Names(
    classes=["dog", "tiger cat", 'odd "name".jpg'],
    groups={"site": ["A", "B"]},
    compare=["flip_rate"],
)


def outcome(text, document=None):
    return parse(text).evaluate(audit_document() if document is None else document)


@pytest.mark.parametrize(
    ("text", "value", "failed"),
    [
        ("top1 < 0.8", 0.75, True),
        ("top1 <= 0.75", 0.75, True),
        ("top1 < 0.75", 0.75, False),
        ("top1.mean < 0.8", 0.75, True),
        ("top1.low < 0.7", 0.65, True),
        ("0.7 > top1.low", 0.65, True),
        ("top1.photos < 10", 12, False),
        ("photos < 100", 13, True),
        ("class.dog.inside_box.mean < 0.5", 0.4, True),
        ('class."tiger cat".top1 < 0.5', 0.5, False),
        ("class.'tiger cat'.photos != 4", 4, False),
        ("group.site.A.top1.low < 0.7", 0.8, False),
        ("group.site.*.top1 < 0.7", None, True),
        ("class.*.top1 < 0.1", None, False),
        ("calibration.error > 0.1", 0.03, False),
        ("faithfulness.deletion.map > 0.5", 0.2, False),
        ("findings.confirmed > 0", 1, True),
        ("findings > 5", 3, False),
        ("findings.untested > 0", 1, True),
        ("findings.error == 1", 1, True),
        ("refused > 0", 1, True),
        ("suspicious > 100", 2, False),
        ("compare.flip_rate.high > 0.01", 0.02, True),
        ("compare.flips > 3", 2, False),
        ("not top1 >= 0.8", 0.75, True),
        ("top1 < 0.5 or findings.confirmed > 0", None, True),
        ("top1 < 0.8 and (refused > 5 or seconds > 0)", None, True),
        ("pointing < pointing_centre", None, False),
        ("top1 < +8e-1", 0.75, True),
    ],
)
def test_a_gate_compares_numbers_of_the_report(text, value, failed):
    found = outcome(text)
    assert (found.value, found.failed) == (value, failed)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("top1 < 0.8", "top1 is 0.75, below 0.8"),
        ("top1 < 0.7", "top1 is 0.75, not below 0.7"),
        ("0.8 > top1", "top1 is 0.75, below 0.8"),
        ("refused > 0", "refused is 1, above 0"),
        ("class.*.top1 < 0.6", 'class."tiger cat".top1 is 0.5, below 0.6'),
        ("box_area < inside_box", "box_area is 0.2, below inside_box (0.4)"),
        ("not top1 > 0.8", "top1 is 0.75, not above 0.8"),
    ],
)
def test_the_sentence_says_the_number_and_the_bound(text, sentence):
    assert outcome(text).text == sentence


def test_close_numbers_are_said_with_the_digits_that_part_them():
    document = audit_document()
    document["summary"]["top1"]["value"] = 0.7999999999
    assert outcome("top1 < 0.8", document).text == "top1 is 0.7999999999, below 0.8"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("top5 < 0.9", "top5 has no value, no photo has a label"),
        ("not top5 < 0.9", "no photo has a label"),
        ("class.dog.pointing < 0.9", "no photo has a box"),
        ("compare.absent > 1", "there is no comparison"),
        ("class.horse.top1 < 0.5", "has no value"),
        ("group.device.*.top1 < 0.5", "there is no group.device.*.top1"),
        ("faithfulness.road.map < 1", "it was not measured"),
    ],
)
def test_what_has_no_value_is_not_passed(text, words):
    found = outcome(text)
    assert found.failed is None
    assert found.text.startswith("could not be checked: ")
    assert words in found.text
    row = parse(text).row(audit_document())
    assert verdict([row])["passed"] is False


def test_conditions_follow_the_logic_of_three_values():
    """Against the definition: what holds for both values of an unknown holds."""
    parts = {"top1 < 0.8": True, "top1 > 0.8": False, "top5 > 0.5": None}
    for (a, x), (b, y), (c, z) in itertools.product(parts.items(), repeat=3):
        for text, rule in [
            (f"{a} and {b} or {c}", lambda p, q, r: (p and q) or r),
            (f"{a} and ({b} or not {c})", lambda p, q, r: p and (q or not r)),
            (f"not ({a} or {b}) and {c}", lambda p, q, r: not (p or q) and r),
        ]:
            ways = itertools.product(*[[v] if v is not None else [True, False] for v in (x, y, z)])
            possible = {rule(*way) for way in ways}
            try:
                failed = outcome(text).failed
            except UsageError:  # such as `top1 < 0.8 and top1 > 0.8`, which says nothing
                continue
            if x is None or y is None or z is None:
                assert failed in {None, *(possible if len(possible) == 1 else ())}, text
            else:
                assert failed is possible.pop(), text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("top1", "ends where a comparison"),
        ("top1 <", "ends where a name or a number"),
        ("< 0.8", "'<' at character 1"),
        ("top1 < 0.8 0.9", "'0.9' at character 12"),
        ("top1 < 0.8 and", "ends where"),
        ("(top1 < 0.8", "ends where ')'"),
        ("top1 < 0.8)", "')' at character 11"),
        ("0.5 < top1 < 0.8", "three values"),
        ("top1 = 0.8", "cannot be read at character 6"),
        ("top1 < 80%", "cannot be read"),
        ("top1 < nan", "no 'nan'"),
        ("top1 < 1e999", "too large"),
        ("__import__('os').system('x') < 1", "cannot be read"),
        ("class.tiger cat.top1 < 0.5", "'cat.top1' at character 13"),
        ('class."open.top1 < 0.5', "cannot be read"),
        ("1 < 2", "two constants"),
        ("top1 < top1.mean", "with itself"),
        ("class.*.top1 < class.*.top5", "both sides"),
        ("top1 < " + "9" * LENGTH, "more than 2,000 characters"),
        ("(" * (DEPTH + 2) + "top1 < 1" + ")" * (DEPTH + 2), "nested more than"),
        ("not " * 400 + "top1 < 1", "nested more than"),
    ],
)
def test_what_is_no_gate_is_refused(text, words):
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        parse(text)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("topl < 0.8", "top1"),
        ("accuracy < 0.8", "metrics: top1"),
        ("top1.lower < 0.8", "nearest: low"),
        ("class.dgo.top1 < 0.8", "nearest: dog"),
        ("class.dog < 0.8", "class.NAME.METRIC"),
        ("class.dog.topl < 0.8", "top1"),
        ("class.dog.top1.low.x < 0.8", "nothing stands behind"),
        ("class.zebra.top1 < 0.8", "there are: dog"),
        ("group.sight.A.top1 < 0.8", "nearest: site"),
        ("group.site.C.top1 < 0.8", "there is no value of the group 'C'"),
        ("group.site.C.top1 < 0.8", "there are: A, B"),
        ("group.sight.A.top1 < 0.8", "there are: site"),
        ("group.*.A.top1 < 0.8", "name the column"),
        ("calibration > 1", "calibration.NAME"),
        ("calibration.errors > 0.1", "nearest: error"),
        ("findings.confirm > 0", "nearest: confirmed"),
        ("compare.flips.high > 0", "nearest: flip_rate"),
        ("faithfulness.deletion.maps > 0", "nearest: map"),
        ("refused.share > 0", "nothing stands behind"),
    ],
)
def test_names_are_looked_up_before_a_photo_is_opened(text, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        parse(text, NAMES)


def test_a_data_set_without_groups_says_what_would_be_one():
    with pytest.raises(UsageError, match=r"no group column 'site'.*\.csv or \.parquet.*every col"):
        parse("group.site.A.top1 < 0.8", Names(groups={}))


def test_a_comparison_needs_another_model():
    with pytest.raises(UsageError, match="compares with no other model"):
        parse("compare.flip_rate > 0", Names(compare=()))


def test_any_class_name_can_be_quoted():
    odd = 'odd "name".jpg\\'
    document = audit_document()
    document["class"][odd] = copy.deepcopy(document["class"]["dog"])
    written = odd.replace("\\", "\\\\").replace('"', '\\"')
    found = parse(f'class."{written}".inside_box < 0.5', Names(classes=[odd])).evaluate(document)
    assert found.failed is True


@pytest.mark.parametrize(
    ("texts", "refused"),
    [
        (["top1 < 0.8", "top1 > 0.5"], True),
        (["top1 < 0.8", "top1 > 0.9"], False),
        (["top1 < 0.8", "top1.mean >= 0.8"], True),
        (["top1 < 0.8", "top1.value > 0.8"], False),
        (["top1.low < 0.8", "top1 > 0.7"], True),  # the value lies above its lower bound
        (["top1.low < 0.8", "top1.low > 0.7 and refused > 0"], False),
        (["top1.low < 0.8", "top1.low > 0.7 or refused > 0"], True),
        (["refused > 0", "refused < 1"], True),
        (["refused > 0", "refused == 0"], True),
        (["refused != 1", "refused == 1"], True),
        (["class.dog.top1 < 0.8", "class.cat.top1 > 0.5"], False),
        (["class.*.top1 < 0.5", "class.*.top1 > 0.3"], True),
        (["pointing < pointing_centre", "pointing > 0.1"], False),
        (["not (top1 >= 0.8)", "not (top1 <= 0.5)"], True),
    ],
)
def test_gates_that_leave_a_number_no_value_are_refused(texts, refused):
    gates = [parse("seconds > 60"), *map(parse, texts)]
    if not refused:
        check(gates)
        return
    with pytest.raises(UsageError, match="no report can pass these gates together") as caught:
        check(gates)
    assert "seconds" not in str(caught.value)  # only those that contradict one another


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("top1 < 80", "always fails; top1 lies between 0 and 1"),
        ("top1 < 0", "can never fail"),
        ("top1 > 1", "can never fail"),
        ("refused >= 0", "always fails; refused is never below 0"),
        ("top1 < 0.5 and top1 > 0.8", "can never fail"),
        ("top1 < 0.8 or top1 > 0.5", "always fails"),
        ("0 < refused and refused < 1", "can never fail"),
        ("class.*.top1 < 80", "always fails"),
        ("class.*.top1 > 80", "can never fail"),
    ],
)
def test_a_gate_that_cannot_decide_is_refused(text, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        parse(text)


def test_each_of_several_classes_may_meet_its_own_bound():
    assert outcome("class.*.top1 < 0.6 and class.*.top1 > 0.8").failed is True


def test_contradictions_are_found_as_by_trying_numbers():
    generator = random.Random(3)  # noqa: S311 - test data
    for _ in range(300):
        bounds = [generator.randrange(1, 10) for _ in range(3)]
        signs = [generator.choice("<>") for _ in range(3)]
        texts = [f"refused {s} {b}" for s, b in zip(signs, bounds, strict=True)]
        passed = any(
            not any(n < b if s == "<" else n > b for s, b in zip(signs, bounds, strict=True))
            for n in range(12)
        )
        try:
            check([parse(text) for text in texts])
        except UsageError:
            assert not passed, texts
        else:
            assert passed, texts


def test_many_long_gates_are_read_in_bounded_time():
    text = " or ".join(f"(class.c{i}.top1 < 0.{i} and refused != {i})" for i in range(1, 40))
    check([parse(text) for _ in range(4)])
    with pytest.raises(UsageError, match="at most"):
        check([parse("top1 < 0.8")] * (GATES + 1))


def test_gates_are_read_from_a_file(tmp_path):
    path = tmp_path / "audit.toml"
    path.write_text("[thresholds]\nfail-if = ['top1 < 0.8', 'class.dog.top1 < 0.5']\n")
    assert [(g.text, g.source) for g in read_gates(path, NAMES)] == [
        ("top1 < 0.8", "audit.toml"),
        ("class.dog.top1 < 0.5", "audit.toml"),
    ]
    path.write_text("[data]\nkind = 'coco'\n[thresholds]\n")
    assert read_gates(path) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[thresholds", "not valid TOML"),
        ("thresholds = 3", "is not a table"),
        ("[data]\nkind = 'coco'", "has no table [thresholds]"),
        ("[data]\n[treshold]\nfail-if = 'top1 < 0.8'", "nearest: thresholds"),
        ("fail_if = 'top1 < 0.8'\n[thresholds]", "fail_if stands outside of [thresholds]"),
        ("[thresholds]\nfail_if = []", "nearest: fail-if"),
        ("[thresholds]\nfail-if = [3]", "not a list of texts"),
        ("[thresholds]\nfail-if = 'topl < 0.8'", "top1"),
        ("[thresholds]\nfail-if = [" + "'top1 < 0.8'," * 300 + "]", "at most 200"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, words):
    path = tmp_path / "audit.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        read_gates(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_gates(tmp_path / "absent.toml")
    with pytest.raises(UsageError, match="folder"):
        read_gates(tmp_path)


def test_the_verdict_counts_what_failed_and_what_was_not_checked():
    document = audit_document()

    def said(*texts):
        return verdict([parse(text).row(document) for text in texts])

    assert said()["passed"] is None
    assert said("top1 < 0.5", "refused > 5") == {
        "passed": True,
        "sentence": "Passed: 2 thresholds met.",
        "reasons": [],
    }
    found = said("top1 < 0.8", "top5 < 0.5", "refused > 5")
    assert found["passed"] is False
    assert found["sentence"] == (
        "Not passed, of 3 declared: 1 threshold not met, 1 threshold not checked."
    )
    assert found["reasons"][0] == "top1 is 0.75, below 0.8"


def test_a_report_of_anything_is_evaluated():
    for document in ({}, {"summary": None}, {"summary": {"top1": 3}}, {"data": {"refused": None}}):
        for text in ("top1.low < 0.5", "refused > 0", "class.*.top1 < 0.5", "findings > 0"):
            assert parse(text).evaluate(document).failed is None


def test_every_metric_of_a_report_has_a_name():
    found = set(metrics([])) - {"photos"}
    assert set(METRICS) == found
    assert set(LABELS) == found
