"""What `python -m bench learning` prints: scores, speeds, ranks and tests, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from bench.learning.contestants import CONTESTANTS, OURS, SEED
from bench.learning.ranks import Ranking, duels, ranking

GROUPS = {"classes": "Classes from columns", "text": "Text", "numbers": "Numbers"}
_METRICS = {"accuracy": "accuracy", "f1": "F1", "mae": "MAE"}
NOT_MEASURED = "not measured"
_WORST = -math.inf  # the score of a failure: the last rank


def details(found: dict[str, Any]) -> str:
    """Write the result of `run` as Markdown, with a table for each stream, best first."""
    return _document(found, _each)


def table(found: dict[str, Any]) -> str:
    """Write the result of `run` as Markdown, with one table for each group of streams."""
    return _document(found, _together)


def _document(found: dict[str, Any], shown: Callable[[Mapping[str, Any]], str]) -> str:
    parts = [_missing(found["missing"])]
    for group, title in GROUPS.items():
        streams = {n: s for n, s in found["streams"].items() if s["group"] == group}
        if streams:
            parts += [f"### {title}", shown(streams), *_ranked(streams)]
    parts += [_failures(found["streams"]), _settings(found)]
    return "\n\n".join(filter(None, parts))


def scores_of(streams: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return scores by stream and contestant, greater is better; a failure is worse than all."""
    found: dict[str, dict[str, float]] = {}
    for name, stream in streams.items():
        row = found[name] = {}
        for contestant, result in stream["results"].items():
            if "error" not in result:
                score = result["metrics"][stream["metric"]]
                row[contestant] = -score if stream["metric"] == "mae" else score
            elif result["error"] != NOT_MEASURED:
                row[contestant] = _WORST
    return found


def complete(scores: dict[str, dict[str, float]]) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Leave out who was not measured on every stream; give the rest, and who was left out."""
    names = list(dict.fromkeys(name for row in scores.values() for name in row))
    left = [name for name in names if not all(name in row for row in scores.values())]
    kept = {n: {c: s for c, s in row.items() if c not in left} for n, row in scores.items()}
    return kept, left


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Return ranks and duels of each group of streams, for machines."""
    told: dict[str, Any] = {}
    for group in GROUPS:
        streams = {n: s for n, s in found["streams"].items() if s["group"] == group}
        if streams:
            scores = scores_of(streams)
            kept, left = complete(scores)
            ranked = ranking(kept)
            told[group] = {
                "average_rank": ranked.ranks,
                "streams": ranked.streams,
                "friedman_p": ranked.p,
                "nemenyi_critical_difference": ranked.critical_difference,
                "left_out": left,
                "duels": {name: vars(duel) for name, duel in duels(scores, OURS).items()},
            }
    return told


def _together(streams: Mapping[str, Any]) -> str:
    """Show streams as lines, contestants as columns; the best of a stream is bold."""
    who = _who(streams)
    lines = []
    for name, stream in streams.items():
        best = _best(streams, name)
        cells = [_cell(stream, contestant, best) for contestant in who]
        lines.append([name, _METRICS[stream["metric"]], f"{stream['rows']:,}", *cells])
    return markdown(["stream", "score", "rows", *who], lines)


def _each(streams: Mapping[str, Any]) -> str:
    """Show each stream in a table of its own."""
    tables = []
    for name, stream in streams.items():
        row = scores_of({name: stream})[name]
        order = sorted(stream["results"], key=lambda who: -row.get(who, _WORST))
        best = _best(streams, name)
        lines = [[who, _cell(stream, who, best), _speed(stream, who)] for who in order]
        head = [f"{name}, {stream['rows']:,} rows", _METRICS[stream["metric"]], "events/s"]
        tables.append(markdown(head, lines))
    return "\n\n".join(tables)


def _best(streams: Mapping[str, Any], name: str) -> float:
    return max(scores_of({name: streams[name]})[name].values(), default=_WORST)


def _cell(stream: Mapping[str, Any], contestant: str, best: float) -> str:
    if contestant not in stream["results"]:
        return "n/a"
    result = stream["results"][contestant]
    if "error" in result:
        return "-" if result["error"] == NOT_MEASURED else "FAILED"
    score = result["metrics"][stream["metric"]]
    shown = _score(score, stream["metric"])
    return f"**{shown}**" if abs(score) == abs(best) else shown


def _speed(stream: Mapping[str, Any], contestant: str) -> str:
    speed = stream["results"].get(contestant, {}).get("events_per_second")
    return f"{speed:,.0f}" if speed else "-"


def _ranked(streams: Mapping[str, Any]) -> Iterable[str]:
    scores = scores_of(streams)
    kept, left = complete(scores)
    ranked = ranking(kept)
    fights = duels(scores, OURS) if any(OURS in row for row in scores.values()) else {}
    lines = []
    for name in (*ranked.ranks, *left):
        rank = f"{ranked.ranks[name]:.2f}" if name in ranked.ranks else "left out"
        line = [name, rank, _typical_speed(streams, name)]
        if duel := fights.get(name):
            line += [f"{duel.wins}", f"{duel.losses}", f"{duel.ties}", _chance(duel.p)]
        lines.append([*line, *[""] * (7 - len(line))])
    won = ("headrace wins", "loses", "ties", "Wilcoxon p")
    yield markdown(["", "average rank", "events/s, median", *won], lines)
    yield _test(ranked, left)


def _typical_speed(streams: Mapping[str, Any], contestant: str) -> str:
    results = (stream["results"].get(contestant, {}) for stream in streams.values())
    speeds = [r["events_per_second"] for r in results if "events_per_second" in r]
    return f"{median(speeds):,.0f}" if speeds else "-"


def _test(ranked: Ranking, left: Sequence[str]) -> str:
    said = f"Ranks over {ranked.streams} streams; a failure ranks last."
    if ranked.p is not None and ranked.critical_difference is not None:
        said += (
            f" Friedman (Iman-Davenport) p = {_chance(ranked.p)}; Nemenyi's critical difference at "
            f"5 % is {ranked.critical_difference:.2f} ranks (Demšar 2006)."
        )
    return said + (f" Left out, not measured on all: {', '.join(left)}." if left else "")


def _missing(missing: Mapping[str, str]) -> str:
    return "\n".join(f"* **MISSING STREAM** {why}" for why in missing.values())


def _failures(streams: Mapping[str, Any]) -> str:
    """Say who failed, where and why: once for each reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, stream in streams.items():
        for contestant, result in stream["results"].items():
            if result.get("error", NOT_MEASURED) != NOT_MEASURED:
                found.setdefault((contestant, result["error"]), []).append(name)
    lines = [
        f"* **FAILED** {contestant} on {', '.join(names)}: {why}"
        for (contestant, why), names in found.items()
    ]
    return "\n".join(lines)


def _settings(found: dict[str, Any]) -> str:
    named = {
        n: f"headrace {v}" if CONTESTANTS[n].package == OURS else v
        for n, v in found["contestants"].items()
    }
    versions = sorted({version for version in named.values() if version != "1"})
    delay = found["label_delay"]
    late = f"{delay:,} rows late, scored once the first has come" if delay else "at once"
    notes = [f"{n}: {s['note']}" for n, s in found["streams"].items() if s["note"]]
    return (
        f"Test-then-train in file order, labels {late}; where the next value is asked, when it "
        f"comes. Headrace has its defaults; every peer its authors' settings and seed {SEED}. "
        "Headrace's speed is from the file's bytes on, the peers' from parsed rows in memory. "
        f"{'; '.join(notes)}. {', '.join(versions)}."
    )


def _who(streams: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for s in streams.values() for name in s["results"]))


def _score(value: float, metric: str) -> str:
    if metric != "mae":
        return f"{value:.4f}"
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.2e}"


def _chance(p: float | None) -> str:
    return "" if p is None else f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Write a table: the first column to the left, figures to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))
