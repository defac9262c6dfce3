"""Thousands of requests that nobody would send, made from the description of the interface."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.page_topics import Topics
from tests.support.serving import serving, small_task, trained

EXAMPLES = 100  # of each operation and phase; about 1,500 requests in all
# Which events are refused is the task's to say, by dead letters' codes, and no schema's.
ENDLESS = ("--exclude-operation-id", "stream")  # its answers go on for ever
LEFT_OUT = "positive_data_acceptance,negative_data_rejection"


def test_nothing_that_the_description_allows_or_forbids_is_answered_otherwise_than_it_says(
    tmp_path: Path, tell: Callable[[str], None]
) -> None:
    task = small_task()
    topics = Topics(task)
    topics.metrics(1)
    with serving(task, trained(task), viewings={task.name: topics.viewing()}) as ask:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{ask.url}/openapi.json"]
        options = ["--checks", "all", "--exclude-checks", LEFT_OUT, "--seed", "1", *ENDLESS]
        done = subprocess.run(
            [*command, *options, "--max-examples", str(EXAMPLES), "--no-color"],
            capture_output=True,
            text=True,
            cwd=tmp_path,  # it keeps examples there
        )
        assert done.returncode == 0, done.stdout
        cases = [line.strip() for line in done.stdout.splitlines() if " generated" in line]
        assert cases
        assert ask("POST", "/v1/tasks/poisoned/predict", {}).status == 422
    tell(f"schemathesis: {cases[0]}")
