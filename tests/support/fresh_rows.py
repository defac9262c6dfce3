"""Normalise events in a process that has never seen any: a script, forked for each request.

A request is a JSON line: the task's TOML, and batches of raw events in hex; the answer holds, for
each event by its place, its row as hex or the code it was refused with.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any, cast

from headrace.stream.events import Records
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import parse

Row = str | list[str]  # the code it was refused with, or its parts
Answer = dict[str, Row]


class FreshRows:
    """Hold the process that forks; `hash_seed` orders its sets and dictionaries differently."""

    def __init__(self, hash_seed: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        )

    def rows(self, toml: str, batches: Sequence[Sequence[tuple[int, bytes]]]) -> Answer:
        """Normalise batches of events, one after the other; each event has a place of its own."""
        job = {"toml": toml, "batches": [[(at, raw.hex()) for at, raw in b] for b in batches]}
        pipe = cast("IO[bytes]", self._process.stdin)
        pipe.write(json.dumps(job).encode() + b"\n")
        pipe.flush()
        return cast("Answer", json.loads(cast("IO[bytes]", self._process.stdout).readline()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)


def normalised(job: dict[str, Any]) -> dict[int, Row]:
    """Return what becomes of each event."""
    normalizer, found = Normalizer(parse(job["toml"], "t")), dict[int, Row]()
    for batch in job["batches"]:
        places = [at for at, _ in batch]
        values: list[bytes | None] = [bytes.fromhex(raw) for _, raw in batch]
        zeros = [0] * len(batch)
        records = Records("t", values, [None] * len(batch), zeros, places, zeros)
        rows, letters = normalizer.normalize(records)
        found |= {letter.offset: letter.code for letter in letters}
        for row, at in enumerate(rows.offset):
            arrays = (rows.time_ms, rows.numeric, rows.ids, rows.entity, rows.label)
            data = b"".join(array[row].tobytes() for array in arrays)
            found[at] = [repr(rows.id[row]), repr(rows.new_class[row]), data.hex()]
    return found


def serve() -> None:
    """Fork for each request; a fork answers and ends."""
    for line in sys.stdin.buffer:
        if not (child := os.fork()):
            os.write(1, json.dumps(normalised(json.loads(line))).encode() + b"\n")
            os._exit(0)
        if os.waitpid(child, 0)[1]:  # it raised: what asked reads the end of file
            return


if __name__ == "__main__":
    serve()
