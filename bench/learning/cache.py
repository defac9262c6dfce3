"""The user's cache: prepared streams, the peers' environments, and results by content.

Peers take hours, and their scores are the same everywhere: those behind bench/RESULTS.md are kept
in the repository too, without their speeds.
"""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from headrace.stream.process.paths import cache_dir

RECORD = Path(__file__).parents[1] / "measured.jsonl"


def folder(name: str) -> Path:
    """Return a directory of ours in the user's cache, made if it is not there."""
    path = cache_dir("bench/learning") / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(content: Any) -> str:
    """Digest something that JSON can say."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Results:
    """Keep what was measured under what it was measured of; a fresh one forgets what it finds."""

    def __init__(
        self, *, fresh: bool = False, place: Path | None = None, record: Path = RECORD
    ) -> None:
        self._fresh = fresh
        self._place = place or folder("results")
        self._record = record
        lines = record.read_text("utf-8").splitlines() if record.is_file() else []
        self._recorded = {line["key"]: line for line in map(json.loads, lines)}

    def get(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """Return the result of exactly this, if there is one; one of the record has no seconds."""
        path = self._path(key)
        if self._fresh:
            return None
        if path.is_file():
            found: dict[str, Any] = json.loads(path.read_bytes())["result"]
            return found
        line = self._recorded.get(path.stem)
        return {"metrics": line["metrics"], "events": line["events"]} if line else None

    def record(self, stream: str, key: dict[str, Any], result: dict[str, Any]) -> None:
        """Put a result into the record, in place of an older one of the same name."""
        name = {"stream": stream, "peer": key["peer"], "rows": key["rows"]}
        others = {k: v for k, v in self._recorded.items() if {n: v[n] for n in name} != name}
        at = self._path(key).stem
        line = name | {"events": result["events"], "metrics": result["metrics"], "key": at}
        self._recorded = others | {at: line}

    def write_record(self) -> None:
        """Write the record, a line for each result, in order."""
        lines = sorted(json.dumps(line) for line in self._recorded.values())
        self._record.write_text("".join(f"{line}\n" for line in lines), "utf-8")

    def put(self, key: dict[str, Any], result: dict[str, Any]) -> None:
        """Keep a result; a reader sees it whole or not at all."""
        path = self._path(key)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"key": key, "result": result}, indent=1), "utf-8")
        part.replace(path)

    def _path(self, key: dict[str, Any]) -> Path:
        return self._place / f"{digest(key)}.json"
