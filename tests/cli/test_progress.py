from __future__ import annotations

import re

import pytest

from headrace.cli.console import bar


@pytest.mark.parametrize("columns", [80, 120])
def test_progress_is_one_line_of_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    monkeypatch.setenv("COLUMNS", str(columns))
    with bar("evaluating", 30_000_520, quiet=False, estimated=True) as update:
        update(12_345_678, "accuracy 0.9123")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capfd.readouterr().err)
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", plain) if "12,345,678" in line]
    assert lines
    for line in lines:
        assert line.startswith("evaluating")
        assert "41%" in line
        assert "of about 30,000,520" in line
        assert line.endswith("accuracy 0.9123")
        assert len(line) <= columns
