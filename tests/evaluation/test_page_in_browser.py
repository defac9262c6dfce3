"""The pages of `--plot FILE.html` in a real browser: light and dark, from a phone to a wall."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.evaluation.compare import Lead
from headrace.stream.evaluation.plot import Point, draw
from headrace.stream.task import parse
from tests.evaluation.test_plot import report
from tests.support.browser import looked_at
from tests.support.events import TASK

WIDTHS = (320, 800, 2560)
READABLE = 4.5  # to 1: the contrast that WCAG asks of texts

ALARMS = [("adwin", 120), ("adwin", 300), ("page_hinkley", 310), ("boost", 40)]
pytestmark = pytest.mark.long


def one(path: Path) -> None:
    points = [Point(100 * n, report(None if n == 0 else 0.5 + n / 100, 12)) for n in range(40)]
    draw(parse(TASK, "t"), points, path, names=("headrace", ""), alarms=ALARMS, source="a<b>.csv")


def two(path: Path) -> None:
    names = ("a-rather-long-name-of-a-task-file-" * 3, "<&> #000000")
    leads = [Lead(n, 0.1, -1 / n, 0.5 / n + 0.1) for n in range(1, 40)]
    points = [Point(100 * n, report(0.5), report(0.6), lead) for n, lead in enumerate(leads)]
    draw(parse(TASK, "t"), points, path, names=names, source="x" * 200)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("drawn", [one, two])
def test_a_page_is_for_everyone_on_every_screen(tmp_path: Path, drawn: Any, dark: bool) -> None:
    path = tmp_path / "curve.html"
    drawn(path)
    seen = looked_at(path, WIDTHS, dark=dark)
    assert [each.get("width", each) for each in seen] == [*WIDTHS]
    for page in seen:
        assert page["dark"] == dark
        assert page["violations"] == []
        assert page["passes"] > 10, "axe-core has looked at nothing"
        assert (page["errors"], page["asked"]) == ([], [])
        assert page["scrolls"] <= 0, "the page is wider than the screen"
        texts = [each for each in page["texts"] if each["text"].strip()]
        assert len(texts) > 15
        assert [each for each in texts if each["contrast"] < READABLE] == []
        assert [each["text"] for each in texts if not within(each["box"], page["svg"])] == []
        assert [both for both in combinations(texts, 2) if overlap(*both)] == []
        assert all(each["height"] > 300 for each in page["points"])
        assert len(page["points"]) in (39, 40)


def within(box: dict[str, float], around: dict[str, float]) -> bool:
    return (
        around["left"] - 1 <= box["left"]
        and box["right"] <= around["right"] + 1
        and around["top"] - 1 <= box["top"]
        and box["bottom"] <= around["bottom"] + 1
    )


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether texts cover each other by more than the room above and below letters."""
    a, b = one["box"], other["box"]
    wide = min(a["right"], b["right"]) - max(a["left"], b["left"])
    high = min(a["bottom"], b["bottom"]) - max(a["top"], b["top"])
    least = min(a["height"], b["height"], a["width"], b["width"])
    return bool(wide > 1 and high > 0.3 * least)
