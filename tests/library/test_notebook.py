"""The notebook among the examples runs from its first cell to its last, without a network."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

PLACE = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


def shown(cell: Any) -> dict[str, str]:
    """Return what a cell shows, by kind of content."""
    found: dict[str, str] = {}
    for output in cell.outputs:
        found |= output.get("data", {})
        found["text"] = found.get("text", "") + output.get("text", "")
    return found


@pytest.mark.filterwarnings("ignore")  # of the kernel's own libraries
def test_the_notebook_runs_and_shows_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = nbformat.read(PLACE, as_version=4)
    assert len(book.cells) == 10
    bin_ = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([bin_, os.environ["PATH"]]))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    client = NotebookClient(book, timeout=240, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    _, frame, task, scores, plot, table, event, asked, check, _ = map(
        shown, (cell if cell.cell_type == "code" else _Silent for cell in book.cells)
    )
    assert "beijing" in frame["text/html"]
    assert 'field = "pm25"' in task["text"]
    assert "<th>headrace</th>" in scores["text/html"]
    assert plot["image/png"]
    assert "prediction" in table["text/html"]
    assert "Prediction(label=None, value=" in event["text/plain"]
    assert len(set(asked["text/plain"].splitlines())) == 4
    assert "pm25" in check["text"]
    assert {path.name for path in tmp_path.iterdir()} >= {"air.csv", "air.hr", "air.toml"}


class _Silent:
    outputs: tuple[Any, ...] = ()
