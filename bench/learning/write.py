"""Write the section of `bench learning` into bench/RESULTS.md, and leave the others alone."""

from __future__ import annotations

import re
from pathlib import Path

TITLE = "## `python -m bench learning`"
HELD_OUT = "## `python -m bench learning --held-out`"
RESULTS = Path(__file__).parents[1] / "RESULTS.md"


def write(text: str, *, held_out: bool = False, path: Path = RESULTS) -> None:
    """Replace the section, or add it at the end."""
    title = HELD_OUT if held_out else TITLE
    before = path.read_text("utf-8")
    section = f"{title}\n\n{text.strip()}\n"
    place = re.compile(rf"^{re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    if place.search(before):
        after = place.sub(lambda _: f"{section}\n", before, count=1)
    else:
        after = f"{before.rstrip()}\n\n{section}"
    path.write_text(after.rstrip() + "\n", "utf-8")
