"""Run the command line as `python -m stream.cli`."""

from __future__ import annotations

from stream.cli import main

main()
