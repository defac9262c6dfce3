"""Run headrace and its peers over the streams, one process at a time, or find what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.learning import environment, ours
from bench.learning.cache import RECORD, Results
from bench.learning.contestants import BASELINES, CONTESTANTS, OURS, Contestant
from bench.learning.environment import PeerError
from bench.learning.prepare import Prepared, StreamMissingError, prepare
from bench.learning.streams import STREAMS, Stream
from bench.peers import run as peers_run


@dataclass(frozen=True)
class Options:
    """Say what is run and how."""

    data: Path | None = None
    rows: int | None = None
    fresh: bool = False
    cached: bool = False  # only show what was measured before
    limit_s: float | None = None  # of one peer on one stream
    label_delay: int = 0  # events between a row and its label; headrace and River's models alone
    cache: Path | None = None  # default: the user's
    write: bool = False  # put peers' scores into the record
    record: Path = RECORD


def run(
    streams: Sequence[str],
    contestants: Sequence[str],
    options: Options,
    on_progress: Callable[[str], None] = lambda note: None,
) -> dict[str, Any]:
    """Measure everyone on every stream; slow peers come last.

    Returns what `--json` prints: for each stream what it is and the results by contestant, each
    with its score and events/s or an error; and for each stream that is missing, why.
    """
    place = options.cache and _made(options.cache / "results")
    results = Results(fresh=options.fresh, place=place, record=options.record)
    ready, missing = _prepare(streams, options, on_progress)
    found: dict[str, dict[str, Any]] = {each.stream.name: {} for each in ready}
    for name in sorted(contestants, key=lambda name: CONTESTANTS[name].slow):
        contestant = CONTESTANTS[name]
        for prepared in ready:
            if contestant.takes(prepared.stream) and (
                not options.label_delay or contestant.waits(prepared.stream)
            ):
                result = _result(contestant, prepared, results, options)
                found[prepared.stream.name][name] = result
                on_progress(f"{prepared.stream.name}: {name} {_told(prepared.stream, result)}")
    if options.write:
        results.write_record()
    return {
        "streams": {
            each.stream.name: _described(each, options)
            | {
                "results": {
                    name: found[each.stream.name][name]
                    for name in contestants
                    if name in found[each.stream.name]
                }
            }
            for each in ready
        },
        "missing": missing,
        "label_delay": options.label_delay,
        "contestants": {name: _version(CONTESTANTS[name]) for name in contestants},
    }


def default_data() -> Path | None:
    """Return the folder of shared data beside the repository, if there is one."""
    place = Path(__file__).parents[3] / "shared" / "data"
    return place if place.is_dir() else None


def selected(names: Iterable[str], *, held_out: bool) -> list[str]:
    """Return the named streams; without a name, all that are held out, or all others."""
    return list(names) or [n for n, stream in STREAMS.items() if stream.held_out == held_out]


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _prepare(
    names: Sequence[str], options: Options, on_progress: Callable[[str], None]
) -> tuple[list[Prepared], dict[str, str]]:
    ready, missing = [], {}
    place = options.cache and _made(options.cache / "streams")
    for name in names:
        try:
            ready.append(prepare(STREAMS[name], options.data, place=place))
        except (StreamMissingError, PeerError) as error:
            missing[name] = str(error)
            on_progress(f"MISSING {error}")
    return ready, missing


def _result(
    contestant: Contestant, prepared: Prepared, results: Results, options: Options
) -> dict[str, Any]:
    """Find a result, or measure it; a failure is told and not kept."""
    rows = min(options.rows or prepared.rows, prepared.rows)
    try:
        key = {
            "stream": prepared.content,
            "peer": contestant.name,
            "settings": _settings(contestant, options),
            "version": _version(contestant),
            "rows": rows,
            **_scored(options),
        }
        result = results.get(key)
        if result is None and options.cached:
            return {"error": "not measured"}
        if result is None:
            result = _measured(contestant, prepared, rows, options)
            results.put(key, result)
    except PeerError as error:
        return {"error": str(error)}
    if options.write and contestant.package != OURS:
        results.record(prepared.stream.name, key, result)
    if "seconds" not in result:
        return result
    return result | {"events_per_second": result["events"] / max(result["seconds"], 1e-9)}


def _measured(
    contestant: Contestant, prepared: Prepared, rows: int, options: Options
) -> dict[str, Any]:
    """Run one contestant.

    Raises:
        PeerError: it could not be installed, failed, or took too long.
    """
    if contestant.package == OURS:
        return ours.run(
            prepared,
            rows,
            image=contestant.image,
            label_delay=options.label_delay,
            limit_s=options.limit_s,
        )
    request = {
        "module": contestant.module,
        "peer": contestant.name,
        "settings": _settings(contestant, options),
        "stream": str(prepared.path),
        "rows": rows,
        **_scored(options),
    }
    if contestant.name in BASELINES:
        return peers_run.run(request)
    said = environment.run(contestant.extra, "run", request, limit_s=options.limit_s)
    result: dict[str, Any] = json.loads(said)
    return result


def _settings(contestant: Contestant, options: Options) -> dict[str, Any]:
    late = {"label_delay": options.label_delay} if options.label_delay else {}
    return contestant.settings | late


def _scored(options: Options) -> dict[str, int]:
    """Say which row is scored first: before the first label comes there is nothing to go by."""
    return {"scored_from": options.label_delay} if options.label_delay else {}


def _version(contestant: Contestant) -> str:
    if contestant.package == OURS:
        return ours.code()
    if contestant.name in BASELINES:
        return "1"
    return f"{contestant.package} {environment.version(contestant.package)}"


def _described(prepared: Prepared, options: Options) -> dict[str, Any]:
    stream = prepared.stream
    return {
        "group": stream.group,
        "metric": stream.metric,
        "rows": min(options.rows or prepared.rows, prepared.rows),
        "features": len(prepared.about["features"]),
        "classes": len(prepared.about["classes"]),
        "held_out": stream.held_out,
        "note": stream.note,
    }


def _told(stream: Stream, result: dict[str, Any]) -> str:
    if "error" in result:
        return f"FAILED {result['error']}"
    speed = result.get("events_per_second")
    told = f", {speed:,.0f} events/s" if speed else ""
    return f"{stream.metric} {result['metrics'][stream.metric]:.4f}{told}"
