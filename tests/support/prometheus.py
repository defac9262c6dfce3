"""A real Prometheus, configured as in examples/observability."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from headrace.stream.process.ports import free_port

FOLDER = Path(__file__).parents[2] / "examples/observability"

NEEDED = pytest.mark.skipif(
    not shutil.which("prometheus") or not shutil.which("promtool"),
    reason="no prometheus here (Debian: apt-get install prometheus)",
)


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """Run Prometheus by the example, but for the target; give its address."""
    text = (FOLDER / "prometheus.yml").read_text()
    assert "127.0.0.1:8501" in text
    text = text.replace("127.0.0.1:8501", target).replace("5s", "1s")
    (folder / "prometheus.yml").write_text(text)
    shutil.copy(FOLDER / "headrace.rules.yml", folder)
    port = free_port()
    command = ["prometheus", f"--config.file={folder}/prometheus.yml"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                *command,
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def got(url: str) -> Any:
    try:
        with urllib.request.urlopen(url) as response:
            return json.load(response)["data"]
    except OSError:
        return None


def value(place: str, query: str) -> float | None:
    found = got(f"{place}/api/v1/query?query={quote(query)}")
    return float(found["result"][0]["value"][1]) if found and found["result"] else None
