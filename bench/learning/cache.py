"""The user's cache: prepared streams, the peers' environments, and results by content."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from stream.jars import user_dir


def folder(name: str) -> Path:
    """Give a directory of ours in the user's cache, made if it is not there."""
    path = (
        user_dir("XDG_CACHE_HOME", mac="Library/Caches", other=".cache") / "bench/learning" / name
    )
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(content: Any) -> str:
    """Digest something that JSON can say."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Results:
    """Keep what was measured under what it was measured of; a fresh one forgets what it finds."""

    def __init__(self, *, fresh: bool = False, place: Path | None = None) -> None:
        self._fresh = fresh
        self._place = place or folder("results")

    def get(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """Give the result of exactly this, if there is one."""
        path = self._path(key)
        if self._fresh or not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_bytes())["result"]
        return found

    def put(self, key: dict[str, Any], result: dict[str, Any]) -> None:
        """Keep a result; a reader sees it whole or not at all."""
        path = self._path(key)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"key": key, "result": result}, indent=1), "utf-8")
        part.replace(path)

    def _path(self, key: dict[str, Any]) -> Path:
        return self._place / f"{digest(key)}.json"
