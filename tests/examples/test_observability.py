"""The Prometheus configuration and alerts, with a real Prometheus."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from headrace.stream.serve.following import LearnerStands
from tests.support.prometheus import FOLDER, NEEDED, got, prometheus, value
from tests.support.serving import Still, serving, small_task, trained

pytestmark = NEEDED


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_real_prometheus_scrapes_a_service_and_its_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = small_task()
    stands = LearnerStands(
        time_ms=time.time_ns() // 1_000_000 - 90_000,
        events=1234,
        learned=1200,
        rejected=3,
        repeated=4,
        lag=17,
        checkpoint_age_s=2.5,
        all={"accuracy": 0.75, "log_loss": None},
        window={"accuracy": 0.5},
        baselines={"no_change": {"all": {"accuracy": 0.6}, "window": {"accuracy": 0.7}}},
    )
    monkeypatch.setattr(Still, "learner", stands)
    with (
        serving(task, trained(task)) as ask,
        prometheus(f"127.0.0.1:{ask.port}", tmp_path) as place,
    ):
        assert ask("POST", "/v1/tasks/poisoned/predict", [{}, {}]).status == 200
        give_up_s = time.monotonic() + 30
        while value(place, 'headrace_release_step{task="poisoned"}') != 60:
            assert time.monotonic() < give_up_s, (tmp_path / "log").read_text()
            time.sleep(0.2)
        for query, wanted in {
            "up": 1,
            "headrace_learner_events_total": 1234,
            "headrace_learner_refused_events_total": 7,
            "headrace_learner_lag_events": 17,
            "headrace_learner_checkpoint_age_seconds": 2.5,
            'headrace_learner_score{model="no_change", events="window"}': 0.7,
            "count(headrace_learner_score)": 4,
            'headrace_refused_events_total{code="schema"}': 2,
            "headrace_predict_seconds_count": 1,
        }.items():
            assert value(place, query) == wanted, query
        rules = got(f"{place}/api/v1/rules")["groups"]
        assert sum(len(group["rules"]) for group in rules) == 8
        wanted_alerts = {"HeadraceLearnerSilent", "HeadraceWorseThanNoChange", "HeadraceAnswersOld"}
        while True:
            alerts = got(f"{place}/api/v1/alerts")["alerts"]
            if {each["labels"]["alertname"] for each in alerts} == wanted_alerts:
                break
            assert time.monotonic() < give_up_s, alerts
            time.sleep(0.2)
        lint = subprocess.run(
            ["promtool", "check", "metrics"], input=ask("GET", "/metrics").body, capture_output=True
        )
        assert lint.returncode == 0, lint.stderr


@pytest.mark.parametrize(
    ("series", "alert", "fires"),
    [
        ({"headrace_learner_checkpoint_age_seconds": "400x10"}, "HeadraceNoCheckpoint", True),
        ({"headrace_learner_checkpoint_age_seconds": "30x10"}, "HeadraceNoCheckpoint", False),
        (
            {
                "headrace_learner_lag_events": "0+30000x10",
                "headrace_learner_events_total": "0+6000x10",
            },
            "HeadraceLagGrows",
            True,
        ),
        (
            {
                "headrace_learner_lag_events": "100-10x10",
                "headrace_learner_events_total": "0+6000x10",
            },
            "HeadraceLagGrows",
            False,
        ),
        (
            {
                "headrace_learner_refused_events_total": "0+1000x10",
                "headrace_learner_events_total": "0+6000x10",
            },
            "HeadraceEventsRefused",
            True,
        ),
        (
            {
                "headrace_learner_refused_events_total": "0+10x10",
                "headrace_learner_events_total": "0+6000x10",
            },
            "HeadraceEventsRefused",
            False,
        ),
        ({"headrace_releases_refused_total": "0 0 0 0 3x6"}, "HeadraceReleasesRefused", True),
        ({"headrace_releases_refused_total": "3x10"}, "HeadraceReleasesRefused", False),
    ],
)
def test_alerts_fire_when_a_person_is_needed(
    tmp_path: Path, series: dict[str, str], alert: str, *, fires: bool
) -> None:
    shutil.copy(FOLDER / "headrace.rules.yml", tmp_path)
    given = [
        {"series": f'{name}{{task="power"}}', "values": values} for name, values in series.items()
    ]
    test = {
        "rule_files": ["headrace.rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                        "eval_time": "8m",
                        "exp_samples": [{"value": 1}] if fires else [],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(json.dumps(test))  # which is YAML, too
    promtool("test", "rules", tmp_path / "test.yml")
