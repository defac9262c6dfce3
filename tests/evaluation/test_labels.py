"""What is said of a target that cannot be predicted as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.errors import UsageError
from headrace.stream.evaluation import sampling
from headrace.stream.evaluation.infer import infer, infer_file
from headrace.stream.evaluation.options import Kind
from headrace.stream.formats import files
from tests.support.hostile import Run

Label = Callable[[int], Any]
DAY = datetime(2024, 1, 1, tzinfo=UTC)
TOO_MANY: dict[str, tuple[Label, Kind | None, str]] = {
    "texts": (lambda n: f"name{n}", None, "texts such as 'name0', .* say --max-classes 60$"),
    "free text": (
        lambda n: f"this is no {n} of them",
        None,
        "free texts .* a text is no target, but it can be a feature",
    ),
    "times": (
        lambda n: (DAY + timedelta(hours=n)).isoformat(),
        None,
        r"dates such as '2024-01-01T00:00:00\+00:00', .* a date is no target",
    ),
    "dates": (lambda n: f"{DAY + timedelta(n):%Y-%m-%d}", None, "dates such as '2024-01-01', "),
    "two currencies": (
        lambda n: f"{'$' if n % 2 else '€'}{n}",
        None,
        "amounts written as text such as '€0', .* write all in one unit",
    ),
    "integers": (
        lambda n: n,
        "classify",
        "whole numbers such as 0, .* say --kind regress; .* say --max-classes 60$",
    ),
    "floats": (lambda n: n / 4, "classify", "numbers such as 0.0, .* say --kind regress$"),
}


def rows(label: Label, count: int = 60) -> list[dict[str, Any]]:
    return [{"x": n * 0.5, "y": label(n)} for n in range(count)]


@pytest.mark.parametrize("case", TOO_MANY)
def test_too_many_labels_are_told_by_what_they_are(case: str) -> None:
    label, kind, words = TOO_MANY[case]
    with pytest.raises(UsageError, match=f"^y: 60 different labels, {words}") as told:
        infer(rows(label), "t", "y", kind=kind)
    assert "expected 2 to 50 classes" in str(told.value)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (lambda n: f"{'$' if n % 2 else '€'}{n}", "amounts .* regress; .* write all in one unit"),
        (lambda n: "ab"[n % 2], "texts such as 'a', .* a class, leave --kind regress out"),
        (lambda n: n % 2 == 0, "truth values such as True, .* leave --kind regress out"),
    ],
)
def test_what_is_no_number_is_no_regression(label: Label, words: str) -> None:
    with pytest.raises(UsageError, match=f"^y: {words}"):
        infer(rows(label), "t", "y", kind="regress")


@pytest.mark.parametrize(
    ("label", "unit"),
    [
        (lambda n: f"${n}", "$"),
        (lambda n: f"{n}.50 EUR", "EUR"),
        (lambda n: f"{n} kWh", "kWh"),
        (lambda n: f"{n}%", "%"),
        (lambda n: f"{n + 1},000", None),
        (lambda n: str(n / 4), None),
    ],
)
@pytest.mark.parametrize("kind", [None, "regress"])
def test_numbers_in_texts_are_predicted(label: Label, unit: str | None, kind: Kind | None) -> None:
    target = infer(rows(label), "t", "y", kind=kind).target
    assert (target.kind, target.decimal, target.unit) == ("regress", ".", unit)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (lambda n: [n / 2] if n == 7 else n, r"a list, .*; row 8 has \[3.5\]: give"),
        (lambda n: {"a": n, "b": 1}, r"an object, .*; row 1 has \{'a': 0.*\}: .* such as /y/a"),
        (lambda n: "a", "'a' alone, expected 2 to 50 classes; if the file is sorted by it"),
        (lambda n: None, "no value in any row that was read"),
    ],
)
def test_a_target_of_no_labels_says_so(label: Label, words: str) -> None:
    with pytest.raises(UsageError, match=f"^y: {words}"):
        infer(rows(label), "t", "y")


def test_more_classes_are_taken_when_they_are_asked_for(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    path.write_text("x,y\n" + "".join(f"{n},c{n % 600}\n" for n in range(3000)))
    with pytest.raises(
        UsageError, match=r"501 or more different labels, texts .* --max-classes, up to 1,000$"
    ):
        infer_file(path, "y")
    task = infer_file(path, "y", max_classes=700)
    assert (len(task.target.classes), task.target.max_classes) == (600, 700)
    with pytest.raises(UsageError, match="--max-classes 5: numbers have no classes"):
        infer_file(path, "x", kind="regress", max_classes=5)
    whole = infer(rows(lambda n: n % 30), "t", "y", max_classes=40)
    assert (whole.target.kind, len(whole.target.classes)) == ("classify", 30)
    done = run("infer", f"{path}", "--target", "y", "--max-classes", "599").is_safe()
    assert done.code == 2
    assert "600 different labels, texts such as 'c0', expected 2 to 599 classes" in done.err


def test_a_row_is_named_where_its_number_is_known(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for at, broken, words in ((7, 50, "one row has"), (7, None, "row 8 has"), (1500, None, "one")):
        lines = [f'{{"x": {n}, "y": {n if n != at else "[1]"}}}' for n in range(1600)]
        if broken is not None:
            lines[broken] = "{"
        path.write_text("\n".join(lines))
        with pytest.raises(UsageError, match=f"y: a list, expected a single value; {words}"):
            infer_file(path, "y")


def test_a_sample_and_the_labels_come_of_one_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "FIRST", 10)
    monkeypatch.setattr(sampling, "LATER", 8)
    monkeypatch.setattr(sampling, "READ", 100)
    path, given, read = tmp_path / "rows.csv", [0], files.read
    path.write_text("x,y\n" + "".join(f"{at},c{at % 30 + at // 100}\n" for at in range(300)))

    def counted(*arguments: Any) -> Iterator[bytes]:
        for row in read(*arguments):
            given[0] += 1
            yield row

    monkeypatch.setattr(files, "read", counted)
    found, known = sampling.with_labels(path, "y", 40)
    assert known == [f"c{at}" for at in range(30)]
    taken = [row["x"] for row in found.rows]
    assert taken[:10] == [*range(10)]
    assert 4 <= len(taken[10:]) < 8
    assert {after - before for before, after in pairwise(taken[10:])} == {16}
    assert given == [101]
    few, cut = sampling.with_labels(path, "y", 5)
    assert (few, len(cut), given) == (found, 6, [202])
    assert sampling.of_file(path) == found
