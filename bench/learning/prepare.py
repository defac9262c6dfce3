"""Prepared streams: the very rows, as JSON lines, that headrace and every peer are given."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from bench.learning import environment, shared
from bench.learning.cache import digest, folder
from bench.learning.streams import Drawn, Row, Stream
from headrace.stream.errors import HeadraceError

_NOT_FEATURES = ("target", "time")


class StreamMissingError(HeadraceError):
    """The data of a stream are not on this machine."""


@dataclass(frozen=True)
class Prepared:
    """Hold a stream whose rows lie in a file; `content` is the digest of rows and description."""

    stream: Stream
    path: Path
    about: dict[str, Any]
    content: str

    @property
    def rows(self) -> int:
        """Count its rows."""
        return int(self.about["rows"])

    def task(self, *, image: bool = False) -> dict[str, Any]:
        """Return the table of headrace's task: what it is about, and no setting of any model.

        Args:
            image: its columns are one image.
        """
        about = self.about
        features: dict[str, Any] = {
            name: {"kind": kind} for name, kind in about["features"].items()
        }
        if image and self.stream.image:
            height, width = self.stream.image
            features = {"image": {"kind": "image", "height": height, "width": width}}
        return {
            "name": f"bench-{self.stream.name}",
            "calendar": about["calendar"],
            "input": {"topic": "bench"} | ({"time": "time"} if about["timed"] else {}),
            "target": {
                "field": "target",
                "kind": "classify" if about["classes"] else "regress",
                "classes": about["classes"],
                "horizon": about["horizon"],
            },
            "features": features,
        }


def prepare(stream: Stream, data: Path | None, *, place: Path | None = None) -> Prepared:
    """Write a stream's rows once, and find them again as long as nothing that makes them changes.

    Args:
        data: the folder of shared data.
        place: where prepared streams lie; default: the user's cache.

    Raises:
        StreamMissingError: its file is not there, or it is not bundled.
    """
    path = (place or folder("streams")) / f"{stream.name}-{_recipe(stream, data)[:16]}.jsonl"
    about_path = path.with_suffix(".json")
    if not about_path.is_file():
        part = path.with_suffix(f".{os.getpid()}.part")
        about = _write(stream, _source(stream, data, part), path)
        part.unlink(missing_ok=True)
        part.write_text(json.dumps(about), "utf-8")
        part.replace(about_path)
    about = json.loads(about_path.read_bytes())
    return Prepared(stream, path, about, digest(about))


def _recipe(stream: Stream, data: Path | None) -> str:
    """Digest all that the rows depend on."""
    if isinstance(stream.source, Drawn):
        made = environment.PROJECT / "generate.py"
        versions = {name: environment.version(name) for name in ("river", "scikit-learn")}
        origin: dict[str, Any] = {"drawn": asdict(stream.source), "versions": versions}
    else:
        made, file = Path(shared.__file__), (data / stream.file) if data else None
        if file is None or not file.is_file():
            raise StreamMissingError(f"{stream.name}: no file {stream.file} in {data or '--data'}")
        origin = {"file": sha256(file.read_bytes()).hexdigest()}
        origin["reader"] = repr(getattr(stream.source, "keywords", ""))
    plain = asdict(replace(stream, source=Drawn("bundled", ""), held_out=False, note=""))
    code = [sha256(path.read_bytes()).hexdigest() for path in (made, Path(__file__))]
    return digest([plain, origin, code])


def _source(stream: Stream, data: Path | None, part: Path) -> Iterator[Row]:
    """Read a stream's rows from where they come from; `part` is a file to use on the way."""
    if not isinstance(stream.source, Drawn):
        assert data is not None
        yield from stream.source(data / stream.file)
        return
    request = asdict(stream.source) | {"to": str(part)}
    try:
        environment.run("river", "generate", request)
    except environment.PeerError as error:
        raise StreamMissingError(f"{stream.name}: {error}") from error
    with part.open("rb") as lines:
        yield from map(json.loads, lines)


def _write(stream: Stream, rows: Iterable[Row], path: Path) -> dict[str, Any]:
    """Write the rows, and describe them: kinds of columns, classes, a digest."""
    kinds: dict[str, str] = {}
    seen: set[str] = set()
    count, total = 0, sha256()
    with path.open("wb") as file:
        for row in islice(rows, stream.rows):
            for name in () if kinds else row:
                if name not in _NOT_FEATURES:
                    kinds[name] = _kind(stream, name)
            label = row["target"]
            if stream.group != "numbers":
                seen.add(label)
            for name in (*stream.categories, *stream.texts):
                row[name] = None if row[name] is None else str(row[name])
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            total.update(line)
            file.write(line)
            count += 1
    if wrong := seen - set(stream.classes or seen):
        raise ValueError(f"{stream.name}: class {min(wrong)!r} is not declared")
    return {
        "features": kinds,
        "classes": list(stream.classes or sorted(seen)),
        "calendar": list(stream.calendar),
        "timed": bool(stream.calendar),
        "horizon": stream.horizon,
        "rows": count,
        "sha256": total.hexdigest(),
    }


def _kind(stream: Stream, name: str) -> str:
    if name in stream.texts:
        return "text"
    return "category" if name in stream.categories else "number"
