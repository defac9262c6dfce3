"""What `verify` tells a person."""

from __future__ import annotations

import re

import msgspec

from headrace.cli.audit import _lines
from headrace.stream.audit.report import Audit
from headrace.stream.rows.late import Truth


def test_all_labels_are_told() -> None:
    """So that they add up."""
    counts = {name: 2**at for at, name in enumerate(msgspec.structs.asdict(Truth()))}
    counts["scored"] *= 1000
    kept = {"rescored", "relearned", "repeated", "unasked", "refused", "held"}
    labels = counts["scored"] - counts["implied"] + sum(counts[name] for name in kept)
    truth = Truth(**counts | {"labels": labels})
    assert truth.balanced
    (told,) = (line for line in _lines(Audit(truth=truth)) if " labels: " in line)
    of, *parts = (int(found.replace(",", "")) for found in re.findall(r"[\d,]*\d", told))
    assert (of, sum(parts)) == (labels, labels)
