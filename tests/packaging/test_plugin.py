"""The example of a package with parts for headrace: installed, named in a task file, at work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace
from headrace.model import members
from headrace.stream.ledger import fingerprint
from headrace.stream.task import validate

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"
SETTINGS: dict[str, Any] = {
    "name": "tide",
    "input": {"topic": "tide"},
    "target": {"field": "height", "kind": "regress", "horizon": 1},
    "features": {"height": {"kind": "number"}},
    "model": {"hidden": [4], "neighbours": 20, "members": ["seasonal"]},
    "drift": {"ladder": []},
}
KEYS = {  # what names each part of the example
    "members": 'members = ["seasonal"]',
    "network": 'network = "crossed"',
    "detectors": 'detectors = ["ewma"]',
    "encoder": 'place = { kind = "encoded", encoder = "position", width = 3 }',
    "metrics": 'metrics = ["bias"]',
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example beside the headrace of this environment."""
    place = tmp_path_factory.mktemp("site")
    command = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(place), str(PLUGIN)]
    subprocess.run(command, check=True)
    return place


@pytest.fixture(scope="module")
def tide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a season that repeats itself, in an order that no other member knows.

    Then it is another one. The places of a few events are none.
    """
    rng = np.random.default_rng(0)
    seasons = rng.normal(size=(2, 24)) * [[10], [30]]
    heights = np.concatenate([np.tile(season, 40) for season in seasons])
    lines = []
    for at, height in enumerate(heights + 0.1 * rng.normal(size=len(heights))):
        place: Any = {"latitude": at % 90, "longitude": 7.5}
        if at % 100 == 99:
            place = [None, "nowhere", {"latitude": 91, "longitude": 0}, {}][at // 100 % 4]
        lines.append(json.dumps({"height": round(height, 4), "place": place}))
    path = tmp_path_factory.mktemp("tide") / "tide.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(site: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [*([str(site)] if site else []), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "headrace", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def task_file(folder: Path, **keys: str) -> str:
    key = {name: keys.get(name, "") for name in KEYS}
    path = folder / "task.toml"
    path.write_text(
        f'name = "tide"\n{key["metrics"]}\n[input]\ntopic = "tide"\n'
        '[target]\nfield = "height"\nkind = "regress"\nhorizon = 1\n'
        f'[features]\nheight = {{ kind = "number" }}\n{key["encoder"]}\n'
        f"[model]\nhidden = [4]\nneighbours = 20\n{key['members']}\n{key['network']}\n"
        f"[drift]\nladder = []\n{key['detectors']}\n"
    )
    return str(path)


def evaluated(site: Path, task: str, tide: Path) -> dict[str, Any]:
    done = run(site, "evaluate", task, "-i", str(tide), "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def plain(installed: Path, tide: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Evaluate the task without any of it."""
    return evaluated(installed, task_file(tmp_path_factory.mktemp("plain")), tide)


def test_a_member_is_named_weighed_and_right(
    installed: Path, tide: Path, plain: dict[str, Any], tmp_path: Path
) -> None:
    task = task_file(tmp_path, members=KEYS["members"])
    scores = [
        found["metrics"]["window"]["mae"] for found in (evaluated(installed, task, tide), plain)
    ]
    assert scores[0] < 5 < scores[1], scores
    done = run(installed, "check", task)
    assert "a season ago" in done.stdout, done.stderr


def test_a_network_learns(
    installed: Path, tide: Path, plain: dict[str, Any], tmp_path: Path
) -> None:
    task = task_file(tmp_path, network=KEYS["network"])
    found = evaluated(installed, task, tide)
    assert found["metrics"] != plain["metrics"]
    assert found["metrics"]["all"]["mae"] < 1.2 * plain["metrics"]["all"]["mae"]
    assert "networks (crossed: 4 relu)" in run(installed, "check", task).stdout


def test_a_detector_fires_under_its_name(installed: Path, tide: Path, tmp_path: Path) -> None:
    task = task_file(tmp_path, detectors=KEYS["detectors"])
    fired = [(each["detector"], each["at"]) for each in evaluated(installed, task, tide)["drifts"]]
    assert any(name == "ewma" and 960 < at < 1100 for name, at in fired), fired
    assert "by ewma" in run(installed, "check", task).stdout


def test_an_encoder_makes_columns_and_refuses_what_is_no_place(
    installed: Path, tide: Path, plain: dict[str, Any], tmp_path: Path
) -> None:
    task = task_file(tmp_path, encoder=KEYS["encoder"])
    found = evaluated(installed, task, tide)
    assert found["reject_codes"] == {"schema": 14}  # of 19: five have none, which is missing
    assert found["metrics"] != plain["metrics"]
    assert "3 numbers of place, by position" in run(installed, "check", task).stdout


def test_a_metric_is_shown_beside_that_of_the_baseline(
    installed: Path, tide: Path, plain: dict[str, Any], tmp_path: Path
) -> None:
    task = task_file(tmp_path, metrics=KEYS["metrics"])
    found = evaluated(installed, task, tide)
    assert found["metrics"] == plain["metrics"]
    assert "further" not in plain
    bias, mae = found["further"]["bias"], found["metrics"]["all"]["mae"]
    assert 0 < abs(bias["bias"]) < mae
    assert abs(bias["no_change"]) < 0.1  # what it errs by adds up to the last label less the first
    done = run(installed, "evaluate", task, "-i", str(tide))
    assert "bias: bias " in done.stdout


def test_all_of_it_goes_together(installed: Path, tide: Path, tmp_path: Path) -> None:
    found = evaluated(installed, task_file(tmp_path, **KEYS), tide)
    assert found["further"]["bias"]["bias"] is not None
    assert {each["detector"] for each in found["drifts"]} == {"ewma"}


@pytest.mark.parametrize(
    ("command", "keys", "told"),
    [
        ("check", {"members": KEYS["members"]}, "no installed package offers 'seasonal' (entry"),
        ("check", {"members": 'members = ["words"]'}, "'words' is in every pool"),
        ("check", {"members": 'members = ["../evil"]'}, "model.members"),
        ("check", {"members": 'members = ["headrace_example.seasonal:MEMBER"]'}, "model.members"),
        ("check", {"network": 'network = "os:system"'}, "model.network = 'os:system'"),
        ("check", {"network": 'network = "rnn"'}, "model.network: no installed package offers"),
        ("evaluate", {"network": 'network = "rnn"'}, "offers 'rnn' (entry point group headrace.ne"),
        ("learn", {"network": 'network = "rnn"'}, "there is mlp, linear, cnn1d, cnn2d, gru, text"),
        ("check", {"detectors": 'detectors = ["cusum"]'}, "drift.detectors: no installed package"),
        ("learn", {"detectors": 'detectors = ["cusum"]'}, "there is adwin, page_hinkley, ddm, ed"),
        ("evaluate", {"encoder": KEYS["encoder"]}, "features.place.encoder: no installed package"),
        ("normalize", {"encoder": KEYS["encoder"]}, "features.place.encoder: no installed package"),
        ("learn", {"metrics": KEYS["metrics"]}, "metrics: no installed package offers 'bias'"),
    ],
)
def test_what_is_not_installed_is_told_and_nothing_is_imported(
    command: str, keys: dict[str, str], told: str, tide: Path, tmp_path: Path
) -> None:
    more = {"check": [], "evaluate": ["-i", str(tide)]}.get(command, ["-b", "127.0.0.1:1"])
    done = run(None, command, task_file(tmp_path, **keys), *more)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_registers_a_member_by_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN / "src"))
    from headrace_example.seasonal import MEMBER  # type: ignore[import-not-found]

    members.register("seasonal", MEMBER)
    try:
        learner = headrace.Learner(validate(SETTINGS, "tide"))
        for at in range(200):
            learner.learn_one({"height": float(at * at % 24)})
        weights = learner.metrics["members"]
        assert weights["a season ago"] == max(weights.values())
    finally:
        del members.MEMBERS["seasonal"]


def test_the_packages_version_is_part_of_what_a_state_depends_on(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    task = validate(SETTINGS, "tide")
    assert fingerprint.settings_of(task)["packages"] == {"headrace-example": "0.1.0"}
    plain = validate(SETTINGS | {"model": {"hidden": [4]}}, "tide")
    assert "packages" not in fingerprint.settings_of(plain)
    assert "members" not in fingerprint.settings_of(plain)["model"]


def test_a_member_whose_opinions_do_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN / "src"))
    from headrace_example.seasonal import MEMBER

    def wrong(spec: Any, state: Any, asked: Any, labels: Any) -> Any:
        opinions, kept = MEMBER.predict(spec, state, asked, labels)
        return [opinion[..., 0] for opinion in opinions], kept

    monkeypatch.setitem(members.MEMBERS, "wrong", MEMBER._replace(predict=wrong))
    settings = SETTINGS | {"model": {"hidden": [4], "members": ["wrong"]}}
    with pytest.raises(headrace.HeadraceError, match=r"model\.members: 'wrong' does not fit"):
        headrace.Learner(validate(settings, "tide"))


def test_the_metric_is_the_same_in_any_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are counted in another unit once they are known: errors have to be, too."""
    monkeypatch.syspath_prepend(str(PLUGIN / "src"))
    from headrace_example.bias import METRIC  # type: ignore[import-not-found]

    from headrace.model import metrics

    monkeypatch.setitem(metrics.METRICS, "bias", METRIC)
    settings = SETTINGS | {"model": {"hidden": [4], "neighbours": 0}, "metrics": ["bias"]}
    learner = headrace.Learner(validate(settings, "tide"))
    heights = 1e9 + 1e30 ** np.linspace(0, 1, 300) * np.random.default_rng(0).normal(size=300)
    said = [learner.learn_one({"height": height}) for height in heights]
    errors = [each.value - height for each, height in zip(said, heights[1:], strict=False)]
    found = learner.metrics["further"]["bias"]
    assert found["bias"] == pytest.approx(np.mean(errors), rel=1e-3)
    assert found["no_change"] == pytest.approx(-np.diff(heights).mean(), rel=1e-3)


def test_a_saved_learner_with_all_of_it_goes_on_to_the_bit(
    installed: Path,
    tide: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    registries: None,
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    events = [json.loads(line) for line in tide.read_text().splitlines()]
    learner = headrace.Learner(task_file(tmp_path, **KEYS))
    learner.predict_then_learn(events[:500])
    learner.save(tmp_path / "tide.hr")
    again = headrace.Learner.load(tmp_path / "tide.hr")
    for cut in (slice(500, 501), slice(501, 950), slice(950, 1400)):
        learner.predict_then_learn(events[cut])
    again.predict_then_learn(events[500:1400])
    assert again.metrics == learner.metrics
    assert again.metrics["further"]["bias"]["bias"] is not None
    assert again.drift == learner.drift[-len(again.drift) :]
