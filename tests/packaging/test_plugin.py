"""A member of the pool from another package: installed, named in a task file, learned with."""

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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example beside the headrace of this environment."""
    place = tmp_path_factory.mktemp("site")
    command = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(place), str(PLUGIN)]
    subprocess.run(command, check=True)
    return place


@pytest.fixture(scope="module")
def tide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a season that repeats itself, in an order that no other member knows."""
    rng = np.random.default_rng(0)
    season = rng.normal(size=24) * 10
    heights = np.tile(season, 40) + 0.1 * rng.normal(size=960)
    path = tmp_path_factory.mktemp("tide") / "tide.csv"
    path.write_text("height\n" + "".join(f"{height:.4f}\n" for height in heights))
    return path


def run(site: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [*([str(site)] if site else []), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "headrace", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env)


def task_file(folder: Path, members: str = '["seasonal"]') -> str:
    path = folder / "task.toml"
    path.write_text(
        'name = "tide"\n[input]\ntopic = "tide"\n[target]\nfield = "height"\nkind = "regress"\n'
        'horizon = 1\n[features]\nheight = { kind = "number" }\n'
        f"[model]\nhidden = [4]\nneighbours = 20\nmembers = {members}\n[drift]\nladder = []\n"
    )
    return str(path)


def test_an_installed_member_is_named_weighed_and_right(
    installed: Path, tide: Path, tmp_path: Path
) -> None:
    with_it, without = (
        json.loads(
            run(installed, "evaluate", task_file(tmp_path, names), "-i", str(tide), "--json").stdout
        )
        for names in ('["seasonal"]', "[]")
    )
    scores = [found["metrics"]["window"]["mae"] for found in (with_it, without)]
    assert scores[0] < 0.5 < scores[1], scores
    done = run(installed, "check", task_file(tmp_path))
    assert "a season ago" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ('["seasonal"]', "no installed package offers 'seasonal' (entry point group"),
        ('["words"]', "'words' is in every pool"),
        ('["../evil"]', "model.members"),
        ('["headrace_seasonal:MEMBER"]', "model.members"),
    ],
)
def test_what_is_not_installed_is_told_and_nothing_is_imported(
    names: str, told: str, tmp_path: Path
) -> None:
    done = run(None, "check", task_file(tmp_path, names))
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_registers_a_member_by_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN / "src"))
    from headrace_seasonal import MEMBER  # type: ignore[import-not-found]

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
    assert fingerprint.settings_of(task)["packages"] == {"headrace-seasonal": "0.1.0"}
    plain = validate(SETTINGS | {"model": {"hidden": [4]}}, "tide")
    assert "packages" not in fingerprint.settings_of(plain)
    assert "members" not in fingerprint.settings_of(plain)["model"]


def test_a_member_whose_opinions_do_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN / "src"))
    from headrace_seasonal import MEMBER

    def wrong(spec: Any, state: Any, asked: Any, labels: Any) -> Any:
        opinions, kept = MEMBER.predict(spec, state, asked, labels)
        return [opinion[..., 0] for opinion in opinions], kept

    monkeypatch.setitem(members.MEMBERS, "wrong", MEMBER._replace(predict=wrong))
    settings = SETTINGS | {"model": {"hidden": [4], "members": ["wrong"]}}
    with pytest.raises(headrace.HeadraceError, match=r"model\.members: 'wrong' does not fit"):
        headrace.Learner(validate(settings, "tide"))
