"""Write Grafana's dashboard, headrace.json: python dashboard.py

One row for each question, in the order in which people ask them. What the metrics mean is told in
docs/serving.md, and what to do in docs/operations.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Panel = dict[str, Any]

WIDTH, HEIGHT = 24, 8  # of Grafana's grid, and of a panel there
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WINDOW = "[$__rate_interval]"


def of_task(metric: str, labels: str = "") -> str:
    return f'{metric}{{task="$task"{labels and ", "}{labels}}}'


def learner(metric: str, labels: str = "", window: str = "") -> str:
    """Return what the learner says, once, however many services tell it."""
    told = of_task(f"headrace_learner_{metric}", labels) + window
    return f"max without (instance, job) ({f'rate({told})' if window else told})"


def score(events: str, labels: str = 'metric="$metric"') -> str:
    return learner("score", f'{labels}, events="{events}"')


def answered(metric: str, by: str = "") -> str:
    """Return how much of something there is a second, in all services together."""
    return f"sum{by} (rate({of_task(f'headrace_{metric}')}{WINDOW}))"


def quantile(q: float) -> str:
    return f"histogram_quantile({q}, {answered('predict_seconds_bucket', ' by (le)')})"


def graph(
    title: str, says: str, queries: dict[str, str], unit: str = "short", **custom: Any
) -> Panel:
    """Return lines over time: expressions by their legends."""
    return {
        "type": "timeseries",
        "title": title,
        "description": says,
        "targets": [
            {"refId": chr(ord("A") + n), "expr": expr, "legendFormat": legend}
            for n, (legend, expr) in enumerate(queries.items())
        ],
        "fieldConfig": {"defaults": {"unit": unit, "custom": custom}, "overrides": []},
        "options": {"tooltip": {"mode": "multi", "sort": "desc"}},
    }


def table(title: str, says: str, expr: str) -> Panel:
    """Return values of now, a row for each."""
    hidden = dict.fromkeys(("Time", "task", "model"), True)
    return {
        "type": "table",
        "title": title,
        "description": says,
        "targets": [{"refId": "A", "expr": expr, "instant": True, "format": "table"}],
        "fieldConfig": {"defaults": {"decimals": 4}, "overrides": []},
        "options": {},
        "transformations": [{"id": "organize", "options": {"excludeByName": hidden}}],
    }


ROWS: dict[str, list[Panel]] = {
    "Is it right?": [
        graph(
            "Score of the newest events",
            "Of the learner and of baselines, over a fading window of 1,000 events.",
            {"{{model}}": score("window")},
        ),
        graph("Score of all events", "Over the whole run.", {"{{model}}": score("all")}),
        table(
            "All scores now",
            "Choose one above, as `metric`, to see it over time.",
            learner("score", 'model="headrace"'),
        ),
    ],
    "What changed?": [
        graph(
            "Newest events less all",
            "Away from 0: the newest events are easier or harder than those before. "
            "`headrace tail <task>.drift` names the alarms.",
            {
                "{{model}}": f"{score('window')} - ignoring (events) {score('all')}",
            },
        ),
        graph(
            "Weights of the pool's members",
            "Whom the learner listens to; they move where the stream changes.",
            {"{{member}}": learner("member_weight")},
            "percentunit",
            fillOpacity=40,
            stacking={"mode": "normal"},
        ),
        graph(
            "Steps of the state that answers",
            "It falls where a run began anew.",
            {"{{instance}}": of_task("headrace_release_step")},
        ),
    ],
    "Does it keep up?": [
        graph(
            "Events learned",
            "A second.",
            {"events": learner("events_total", window=WINDOW)},
            "eps",
        ),
        graph(
            "Work that waits",
            "If it grows: a smaller model, or a faster core.",
            {"events": learner("lag_events")},
        ),
        graph(
            "Since a sign of life",
            "Of the learner, which tells of itself each second in which it learns; and the age "
            "of its newest checkpoint: a restart learns again since.",
            {"learner": learner("silent_seconds"), "checkpoint": learner("checkpoint_age_seconds")},
            "s",
        ),
    ],
    "Do labels come?": [
        graph(
            "Labels learned",
            "A second, beside events.",
            {
                "labels": learner("labels_total", window=WINDOW),
                "events": learner("events_total", window=WINDOW),
            },
            "eps",
        ),
        graph(
            "Events that wait for their label",
            "Where labels come by themselves (`[labels]`); else nothing.",
            {"events": learner("pending_labels")},
        ),
    ],
    "What is refused?": [
        graph(
            "Events that the learner refuses",
            "Their share. `headrace dead-letters TASK` names each code with an example.",
            {
                "refused": f"{learner('refused_events_total', window=WINDOW)} / "
                f"({learner('refused_events_total', window=WINDOW)} + "
                f"{learner('events_total', window=WINDOW)})",
            },
            "percentunit",
        ),
        graph(
            "Events refused in requests",
            "A second, by code.",
            {"{{code}}": answered("refused_events_total", " by (code)")},
            "eps",
        ),
        graph(
            "Releases refused",
            "A second. Not whole, or not of this task's learner or version.",
            {"{{instance}}": f"rate({of_task('headrace_releases_refused_total')}{WINDOW})"},
        ),
    ],
    "How is it served?": [
        graph(
            "Answers",
            "A second, of all services.",
            {
                "requests": answered("predict_seconds_count"),
                "events": answered("predicted_events_total"),
            },
        ),
        graph(
            "Time to an answer",
            "From a request's last byte: half take no longer, and 99 of 100.",
            {"p50": quantile(0.5), "p99": quantile(0.99)},
            "s",
        ),
        graph(
            "Age of the state that answers",
            "It is no trouble where no event came since.",
            {"{{instance}}": of_task("headrace_release_age_seconds")},
            "s",
        ),
        graph(
            "Events that the state does not know",
            "As of a second ago.",
            {"{{instance}}": of_task("headrace_release_behind_events")},
        ),
        graph(
            "Releases taken over",
            "A second.",
            {"{{instance}}": f"rate({of_task('headrace_releases_total')}{WINDOW})"},
        ),
    ],
}


def variable(name: str, metric: str) -> dict[str, Any]:
    """Return a choice among the values of a label."""
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({metric}, {name})", "refId": name},
        "refresh": 2,  # when the time range changes
        "sort": 1,
    }


def placed() -> Iterator[Panel]:
    """Yield the panels of all rows, with their ids and places."""
    y, id_ = 0, 0
    for question, panels in ROWS.items():
        id_ += 1
        row = {"type": "row", "title": question, "collapsed": False, "panels": []}
        yield {"id": id_, **row, "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}}
        y += 1
        per_line = 3 if len(panels) != 2 else 2
        for n, panel in enumerate(panels):
            id_ += 1
            line, column = divmod(n, per_line)
            at = {"x": column * WIDTH // per_line, "y": y + line * HEIGHT}
            size = {"w": WIDTH // per_line, "h": HEIGHT}
            yield {"id": id_, "datasource": SOURCE, **panel, "gridPos": at | size}
        y += -(-len(panels) // per_line) * HEIGHT


def dashboard() -> dict[str, Any]:
    return {
        "uid": "headrace",
        "title": "headrace",
        "tags": ["headrace"],
        "schemaVersion": 39,  # of Grafana 10.3; newer ones read it
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                variable("task", "headrace_releases_total"),
                variable("metric", 'headrace_learner_score{task="$task"}'),
            ]
        },
        "annotations": {"list": []},
        "panels": [*placed()],
    }


if __name__ == "__main__":
    place = Path(__file__).with_name("headrace.json")
    place.write_text(json.dumps(dashboard(), indent=2) + "\n")
