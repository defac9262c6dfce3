"""Grafana's dashboard: each of its queries finds something in a real Prometheus."""

from __future__ import annotations

import json
import math
import runpy
import time
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from headrace.stream.serve.following import LearnerStands
from tests.support.events import good
from tests.support.prometheus import FOLDER, NEEDED, got, prometheus
from tests.support.serving import Still, serving, small_task, trained

GRAFANA = FOLDER / "grafana"
DASHBOARD = json.loads((GRAFANA / "headrace.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
CHOSEN = {"$task": "poisoned", "$metric": "accuracy", "$__rate_interval": "10s"}


def chosen(expression: str) -> str:
    """Put in what Grafana does."""
    for name, value in CHOSEN.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def series(place: str, expression: str) -> list[float]:
    """Return the values of all series that an expression gives now."""
    found = got(f"{place}/api/v1/query?query={quote(chosen(expression))}")
    return [float(each["value"][1]) for each in found["result"]] if found else []


def stands() -> LearnerStands:
    """Return what a learner says that learns 100 events a second."""
    now_ms = time.time_ns() // 1_000_000
    events = now_ms // 10 % 1_000_000_000
    scores = {"accuracy": 0.75, "log_loss": 0.5}
    return LearnerStands(
        time_ms=now_ms,
        events=events,
        learned=events,
        rejected=events // 100,
        repeated=0,
        lag=17,
        checkpoint_age_s=2.5,
        labels={"pending": 3},
        all=scores,
        window=scores,
        baselines={"no_change": {"all": scores, "window": scores}},
        members={"network": 0.75, "neighbours": 0.25},
    )


@NEEDED
def test_every_query_finds_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Still, "learner", property(lambda self: stands()))
    task = small_task()
    with (
        serving(task, trained(task)) as ask,
        prometheus(f"127.0.0.1:{ask.port}", tmp_path) as place,
    ):
        give_up_s, waiting = time.monotonic() + 60, EXPRESSIONS
        while waiting:
            assert time.monotonic() < give_up_s, waiting
            event = json.loads(good(70))
            assert ask("POST", "/v1/tasks/poisoned/predict", [event, {}]).status == 200
            time.sleep(0.2)
            waiting = [
                each
                for each in waiting
                if not (found := series(place, each)) or any(map(math.isnan, found))
            ]
        assert len(series(place, EXPRESSIONS[0])) == 2  # the learner, and no_change
        for name in ("task", "metric"):
            (told,) = (each for each in DASHBOARD["templating"]["list"] if each["name"] == name)
            metric = told["query"]["query"].removeprefix("label_values(").removesuffix(f", {name})")
            assert series(place, f"count by ({name}) ({metric})")


def test_the_dashboard_is_what_its_program_writes() -> None:
    assert runpy.run_path(str(GRAFANA / "dashboard.py"))["dashboard"]() == DASHBOARD


def test_panels_have_places_of_their_own() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        assert apart(one, other, "x", "w") or apart(one, other, "y", "h"), (one, other)


def apart(one: dict[str, Any], other: dict[str, Any], at: str, size: str) -> bool:
    return bool(one[at] + one[size] <= other[at] or other[at] + other[size] <= one[at])
