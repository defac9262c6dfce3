from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.stream.errors import UsageError
from headrace.stream.evaluation.compare import Lead
from headrace.stream.evaluation.plot import POINTS, Curve, Point, check_plot, draw
from headrace.stream.task import parse
from tests.support.events import TASK

STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!doctype html>"}


def report(accuracy: float | None, members: int = 2) -> dict[str, Any]:
    scores = {"all": {"accuracy": accuracy}, "window": {"accuracy": accuracy}}
    weights = {f"member {at}": 1.0 / (1 + at) for at in range(members)}
    baselines = {"no_change": {"all": {}, "window": {}}, "majority": scores}
    return scores | {"baselines": baselines, "members": weights}


def words(svg: bytes) -> set[str]:
    """Return the texts of a drawing: of shapes matplotlib leaves each as a comment beside them."""
    text = svg.decode(errors="replace")
    return {*re.findall(r"<!-- (.*?) -->", text), *re.findall(r"<text [^>]*>(.*?)</text>", text)}


@pytest.mark.parametrize("suffix", STARTS)
def test_a_plot_shows_the_metric_the_baselines_the_alarms_and_the_pool(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"curve.{suffix}"
    points = [Point(100 * n, report(None if n == 0 else 0.5 + n / 100, 12)) for n in range(5)]
    alarms = [("adwin", 120), ("adwin", 300), ("adwin", 310)]
    check_plot(path)
    draw(parse(TASK, "t"), points, path, names=("it", ""), alarms=alarms)
    data = path.read_bytes()
    assert data.startswith(STARTS[suffix])
    shown = words(data)
    if suffix != "png":
        assert {"poisoned: accuracy in a fading window of 1,000 events", "events"} <= shown
        assert {"it  0.5400", "no change", "majority  0.5400"} <= shown
        assert "adwin (3)" in shown
        assert {"member 0 (+1.00)", "member 2 (+0.33)", "9 others (+1.27)"} <= shown
        assert "member 3 (+0.25)" not in shown
    told = b"Accuracy of label over 400 events: it 0.5400, majority 0.5400, no change."
    assert told in data, "the drawing is not described"


def test_a_comparison_shows_both_tasks_and_the_lead_with_its_band(tmp_path: Path) -> None:
    leads = [Lead(0, 0.0, None, None), Lead(90, 0.1, None, None), Lead(190, 0.1, 0.02, 0.18)]
    points = [Point(100 * n, report(0.5), report(0.6), lead) for n, lead in enumerate(leads)]
    path = tmp_path / "two.svg"
    draw(parse(TASK, "t"), points, path, names=("a$b$", "<&>"), alarms=[("adwin", 3)])
    shown = words(path.read_bytes())
    assert {"a$b$  0.5000", "&lt;&amp;&gt;  0.6000"} <= shown
    assert {"&lt;&amp;&gt; less a$b$: +10, better", "difference in accuracy, points"} <= shown
    assert {"95% confidence, at all times together", "mean of the pairs so far"} <= shown
    assert "drift alarms" not in shown


def test_a_baseline_far_off_does_not_flatten_the_rest(tmp_path: Path) -> None:
    task = parse(
        TASK.replace('"classify"', '"regress"').replace('classes = ["no", "yes"]', ""), "t"
    )
    points = []
    for n in range(5):
        window = {"all": {"mae": 5.0}, "window": {"mae": 5.0 + n}}
        far, near = (
            {name: {"mae": 900.0} for name in window},
            {name: {"mae": 6.5} for name in window},
        )
        baselines = {"mean": far, "no_change": near}
        points.append(Point(n, window | {"baselines": baselines, "members": {"one": 1.0}}))
    draw(task, points, tmp_path / "a.svg", names=("it", ""))
    shown = words((tmp_path / "a.svg").read_bytes())
    assert {"it  5.0000", "no change  6.5000", "mean  900.0, off the scale"} <= shown
    alone = draw(task, points[-1:], None, names=("it", ""))
    assert [line.get_clip_on() for line in alone.axes[0].lines] == [False, False, True]
    assert "mean absolute error of label" in shown
    assert max(float(word) for word in shown if re.fullmatch(r"\d+(\.\d+)?", word)) < 20


def test_nothing_known_yet_is_drawn_as_nothing(tmp_path: Path) -> None:
    point = Point(3, report(None), report(None), Lead(0, 0.0, None, None))
    for name, points in (("a.svg", [point]), ("b.svg", [point._replace(other=None, lead=None)])):
        draw(parse(TASK, "t"), points, tmp_path / name, names=("a", "b"))
        assert "events" in words((tmp_path / name).read_bytes())


def test_html_asks_nothing_of_any_network(tmp_path: Path) -> None:
    path = tmp_path / "curve.html"
    draw(parse(TASK, "t"), [Point(9, report(0.5))], path, names=("it", ""))
    asked: list[tuple[str, str | None]] = []

    class Finder(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            asked.extend((tag, v) for k, v in attrs if k in ("src", "href", "xlink:href", "data"))
            assert tag not in ("script", "link", "img", "iframe", "object")

    Finder().feed(path.read_text())
    assert all(value and value.startswith("#") for _, value in asked)
    assert "@import" not in path.read_text()


def test_an_early_error_does_not_set_the_scale(tmp_path: Path) -> None:
    task = parse(
        TASK.replace('"classify"', '"regress"').replace('classes = ["no", "yes"]', ""), "t"
    )
    points = []
    for n in range(40):
        mae = 5000.0 if n < 2 else 5.0 + n % 3
        scopes = {"all": {"mae": mae}, "window": {"mae": mae}}
        points.append(Point(n, scopes | {"baselines": {}, "members": {"one": 1.0}}))
    figure = draw(task, points, None, names=("it", ""))
    assert figure.axes[0].get_ylim()[1] < 20


def test_a_colour_has_one_meaning() -> None:
    points = [Point(100 * n, report(0.5 + n / 100, 12)) for n in range(9)]
    alarms = [("adwin", 120), ("boost", 300)]
    figure = draw(parse(TASK, "t"), points, None, names=("it", ""), alarms=alarms)
    scores, alarmed, members = figure.axes
    used = [
        {line.get_color() for line in scores.lines},
        {tuple(ticks.get_color()) for ticks in alarmed.collections},
        {tuple(area.get_facecolor()[0]) for area in members.collections},
    ]
    from matplotlib.colors import to_rgba

    colours = [{to_rgba(colour) for colour in part} for part in used]
    assert [len(part) for part in colours] == [2, 1, 4]
    assert len(set.union(*colours)) == 7
    shares = [area.get_paths()[0].vertices[:, 1].max() for area in members.collections]
    assert max(shares) == pytest.approx(1.0)


def test_of_few_rows_there_is_something_to_see() -> None:
    figure = draw(parse(TASK, "t"), [Point(7, report(0.5))], None, names=("it", ""), alarms=[])
    scores, _, members = figure.axes
    assert all(line.get_marker() == "o" and not line.get_clip_on() for line in scores.lines)
    for area in members.collections:
        assert np.ptp(area.get_paths()[0].vertices[:, 0]) == 7


def test_html_can_be_read_without_seeing_it(tmp_path: Path) -> None:
    path = tmp_path / "curve.html"
    points = [Point(100 * n, report(None if n == 0 else 0.5 + n / 100)) for n in range(5)]
    draw(parse(TASK, "t"), points, path, names=("<it>", ""), alarms=[], source="power<1>.csv")
    html = path.read_text()
    assert 'role="img" aria-labelledby="title about"' in html
    assert '<title id="title">poisoned: accuracy</title><desc id="about">Accuracy of' in html
    rows = re.findall(r'<tr><th scope="row">([\d,]+)</th><td>(.*?)</td>', html)
    assert rows == [("0", "-")] + [(f"{n}00", f"{0.5 + n / 100:.4f}") for n in range(1, 5)]
    assert '<th scope="col">&lt;it&gt;</th>' in html
    assert "power&lt;1&gt;.csv, headrace " in html
    assert "prefers-color-scheme:dark" in html
    assert "#000000" not in html
    hover = re.findall(
        r'<rect class="at" x="([\d.]+)".*?width="([\d.]+)".*?<title>(.*?)</title>', html, re.S
    )
    assert [told.splitlines()[:2] for _, _, told in hover][2] == [
        "200 events",
        "&lt;it&gt;: 0.5200",
    ]
    ends = [float(x) + float(width) for x, width, _ in hover]
    assert [float(x) for x, _, _ in hover[1:]] == pytest.approx(ends[:-1], abs=0.02)


def test_what_cannot_be_drawn_is_told_beforehand(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a name that ends with \.png, \.svg, \.html"):
        check_plot(tmp_path / "curve.gif")
    with pytest.raises(UsageError, match="there is no directory"):
        check_plot(tmp_path / "none" / "curve.png")
    (tmp_path / "curve.png").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        check_plot(tmp_path / "curve.png")


def test_a_curve_is_even_and_bounded_however_long_the_run() -> None:
    curve = Curve()
    for events in range(64, 3_000_000, 64):
        if events % curve.stride == 0:
            curve.add(Point(events, {}))
            assert len(curve.points) < 2 * POINTS
    assert len(curve.points) >= POINTS
    assert [p.events for p in curve.points] == [
        curve.stride * (n + 1) for n in range(len(curve.points))
    ]
