"""Run the benches as `python -m bench`."""

from __future__ import annotations

from headrace.cli import start

start("bench.commands")
