"""The wheel, as a user installs it: nothing but `headrace`, whatever the folder around it holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.serve.assets import FILES

pytestmark = pytest.mark.kafka  # it starts brokers of its own

ROOT = Path(__file__).parents[2]
DECOYS = ("model", "stream", "producers", "bench", "cli", "demo")


def output(*command: str | Path, cwd: Path, **env: str) -> str:
    surroundings = {
        name: value
        for name, value in os.environ.items()
        if name not in ("KAFKA_BOOTSTRAP", "PYTHONPATH", "VIRTUAL_ENV")
    }
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd=cwd, env=surroundings | env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source distribution, and from it the wheel."""
    place = tmp_path_factory.mktemp("built")
    output("uv", "build", "--quiet", "--out-dir", place, ROOT, cwd=place)
    return place


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install it in an environment of its own; give the folder of its commands."""
    place = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    output("uv", "venv", "--quiet", "--python", sys.executable, place / "env", cwd=place)
    pins = output("uv", "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project",
                  "--extra", "local", "--no-hashes", cwd=ROOT)  # fmt: skip
    (place / "pins.txt").write_text(pins)
    python = place / "env/bin/python"
    install = "uv", "pip", "install", "--quiet", "--python", python, "--constraint"
    output(*install, place / "pins.txt", f"{wheel}[local]", cwd=place)
    return place / "env/bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder whose packages are called like ours, and cannot be imported."""
    for name in DECOYS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('a decoy was imported')\n")
    return tmp_path


def test_it_holds_one_package_and_no_bench(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"headrace"}
    inner = {name.split("/")[1] for name in names if name.startswith("headrace/")}
    packages = {"cli", "demo", "examples", "export", "model", "producers", "stream"}
    library = {
        "__init__.py",
        "batches.py",
        "columns.py",
        "late_labels.py",
        "learner.py",
        "reading.py",
    }
    library |= {"client.py", "river.py", "saved.py"}
    library |= {
        "client.py",
        "datasets.py",
        "predictions.py",
        "service.py",
        "sklearn.py",
        "tables.py",
    }
    library |= {"tensorflow.py", "torch.py", "weights.py"}
    assert inner == packages | library | {"__main__.py", "py.typed"}
    for name in (
        *("stream/broker/jars.sha256", "stream/broker/server.properties"),
        *("examples/spam.toml", "examples/notebook.ipynb"),
        *(f"stream/serve/page/{asset}" for asset, _ in FILES.values()),
        "stream/serve/page/uPlot-LICENSE.txt",
    ):
        assert f"headrace/{name}" in names
    with tarfile.open(source) as file:
        held = {name.split("/")[1] for name in file.getnames()}
    assert not held & {"bench", "tests", "uv.lock"}
    assert {"src", "stream", "model", "producers", "examples", "pyproject.toml"} <= held


def test_it_works_in_a_folder_with_packages_called_like_ours(installed: Path, folder: Path) -> None:
    headrace, state = installed / "headrace", {"HEADRACE_STATE": str(folder / "state")}

    def said(*command: str) -> Any:
        return json.loads(output(headrace, *command, "--json", cwd=folder, **state))

    rows = "".join(f"{at % 7},{'yes' if at % 7 > 3 else 'no'}\n" for at in range(500))
    (folder / "rows.csv").write_text(f"x,y\n{rows}")
    task = output(headrace, "infer", "rows.csv", "--target", "y", cwd=folder)
    (folder / "rows.toml").write_text(task)
    assert said("evaluate", "rows.toml", "-i", "rows.csv")["metrics"]["all"]["accuracy"] > 0.9
    module = installed / "python", "-P", "-m", "headrace"
    assert output(*module, "schema", cwd=folder) == output(headrace, "schema", cwd=folder)
    shown = said("demo", "--for", "20")
    assert shown["errors"] == []
    assert all(task["predictions"] > 0 for task in shown["tasks"].values())


def test_it_normalises_and_learns_from_there(
    installed: Path, folder: Path, kafka: KafkaConnection
) -> None:
    headrace, state = installed / "headrace", {"HEADRACE_STATE": str(folder / "state")}
    rows = "".join(f"{at % 7},{'yes' if at % 7 > 3 else 'no'}\n" for at in range(500))
    (folder / "rows.csv").write_text(f"x,y\n{rows}")
    task = output(headrace, "infer", "rows.csv", "--target", "y", cwd=folder)
    named = f"wheel-{os.getpid()}"
    task = task.replace('"rows"', f'"{named}"').replace("events.rows", f"events.{named}")
    (folder / "rows.toml").write_text(task)
    at = "-b", kafka.servers
    output(headrace, "topics", "create", "rows.toml", *at, cwd=folder)
    output(headrace, "produce", "file", "rows.csv", "--topic", f"events.{named}", *at, cwd=folder)
    normaliser = subprocess.Popen([headrace, "normalize", "rows.toml", *at], cwd=folder)
    try:
        command = "learn", "rows.toml", "--from", "features", "--drain", "--json", *at
        predicted = 0
        for _ in range(30):
            lines = output(headrace, *command, cwd=folder, **state).splitlines()
            predicted = json.loads(lines[-1])["events"]
            if predicted == 500:
                break
    finally:
        normaliser.terminate()
        normaliser.wait()
    assert predicted == 500
