"""What the page shows of single records: known fields alone, each bounded, whoever wrote it."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import msgspec

RECORD_BYTES = 1 << 20
TEXT = 300  # characters
NAME = 100
NAMES = 100  # members, inputs
SCORES = ("accuracy", "macro_f1", "log_loss", "mae", "rmse", "coverage")
SCOPES = ("window", "all")
_COUNTS = (
    *("events", "learned", "rejected", "repeated", "lag", "time_ms", "checkpoint_age_s"),
    *("events_per_second", "refused_updates", "resets"),
)
_LABELS = ("labels", "scored", "pending", "expired", "refused", "lag")
_ALARM = ("detector", "before", "after", "statistic", "threshold", "window")
_STEP = ("action", "member", "rival", "events", "gain", "low", "high", "statistic")


def object_of(value: bytes | None) -> dict[str, Any]:
    """Return a record that is a JSON object; {} if it is none, or too large."""
    if not value or len(value) > RECORD_BYTES:
        return {}
    try:
        found = msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def number(value: Any) -> float | int | None:
    """Return a finite number that JSON and JavaScript can hold; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) and abs(value) < 1e300 else None


def scalar(value: Any, most: int = TEXT) -> str | float | int | bool | None:
    """Return a text, cut, a number or a boolean; else None."""
    if isinstance(value, str):
        return value if len(value) <= most else f"{value[:most]}…"
    return value if isinstance(value, bool) else number(value)


def within(found: Any, *names: str) -> dict[str, Any]:
    """Return an object within objects; {} if it is not there."""
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def numbers(found: Any, most: int = NAMES) -> dict[str, float | int]:
    """Return the numbers of an object by name, the largest first."""
    told = {str(name)[:NAME]: number(value) for name, value in within(found).items()}
    known = [(name, value) for name, value in told.items() if value is not None]
    return dict(sorted(known, key=lambda part: -abs(part[1]))[:most])


def of_metrics(found: dict[str, Any], baselines: Sequence[str]) -> dict[str, Any]:
    """Return what is shown of the newest record of metrics."""
    told: dict[str, Any] = {name: number(found.get(name)) for name in _COUNTS}
    told["scores"] = {
        model: {
            scope: {
                metric: value
                for metric in SCORES
                if (value := number(within(of, scope).get(metric))) is not None
            }
            for scope in SCOPES
        }
        for model, of in [
            ("model", found),
            *((each, within(found, "baselines", each)) for each in baselines),
        ]
    }
    told["members"] = numbers(found.get("members"))
    if labels := within(found, "labels"):
        told["labels"] = {name: number(labels.get(name)) for name in _LABELS}
        told["labels"]["delay"] = numbers(labels.get("delay"))
    if importance := numbers(found.get("importance")):
        told["importance"] = importance
    return told


def of_drift(found: dict[str, Any], at_ms: int) -> dict[str, Any]:
    """Return what is shown of an alarm, or of what was done."""
    alarm = found.get("kind") == "alarm"
    told: dict[str, Any] = {
        name: value
        for name in (_ALARM if alarm else _STEP)
        if (value := scalar(found.get(name), NAME)) is not None
    }
    told |= {"kind": "alarm" if alarm else "step", "at_ms": at_ms}
    told |= {name: scalar(found.get(name), NAME) for name in ("id", "time_ms")}
    if alarm and isinstance(moved := found.get("moved"), list):
        told["moved"] = [
            {"column": scalar(each.get("column"), NAME)}
            | {name: number(each.get(name)) for name in ("psi", "ks")}
            for each in moved[:3]
            if isinstance(each, dict)
        ]
    if isinstance(exchanged := found.get("exchanged"), list):
        told["exchanged"] = [scalar(each, NAME) for each in exchanged[:2]]
    return told


def of_prediction(found: dict[str, Any], at_ms: int) -> dict[str, Any]:
    """Return what is shown of a prediction."""
    told: dict[str, Any] = {name: scalar(found.get(name)) for name in ("id", "prediction")}
    told |= {name: number(found.get(name)) for name in ("step", "time_ms", "partition", "offset")}
    told["at_ms"] = at_ms
    if isinstance(chances := found.get("probabilities"), list):
        known = [chance for chance in map(number, chances) if chance is not None]
        told["probability"] = max(known, default=None)
    interval = found.get("interval")
    if isinstance(interval, list) and len(interval) == 2:
        told["interval"] = [*map(number, interval)]
    return told


def explanation(found: dict[str, Any]) -> dict[str, Any]:
    """Return what drove a prediction; what many small inputs add is summed up as `rest`."""
    why = within(found, "explanation")
    base, parts = number(why.get("base")), numbers(why.get("inputs"), len(why.get("inputs") or ()))
    if base is None or not parts:
        return {}
    shown = dict([*parts.items()][:NAMES])
    told = {"base": base, "inputs": shown, "of": scalar(why.get("of"), NAME)}
    if len(parts) > len(shown):
        told["rest"] = math.fsum([*parts.values()][len(shown) :])
    return told


def of_letter(found: dict[str, Any], at_ms: int) -> dict[str, Any]:
    """Return what is shown of a refused event: why, where it stands, and how it begins."""
    told: dict[str, Any] = {name: scalar(found.get(name)) for name in ("detail", "topic")}
    told |= {name: number(found.get(name)) for name in ("partition", "offset")}
    if isinstance(raw := found.get("raw"), str):
        told["raw"] = beginning(_bytes_of(raw[: 4 * TEXT]))
    return told | {"at_ms": at_ms}


def beginning(raw: bytes | None) -> str:
    """Return how a record begins, as text."""
    text = (raw or b"")[: 4 * TEXT].decode("utf-8", "replace")
    return text if len(text) <= TEXT else f"{text[:TEXT]}…"


def event(raw: bytes | None, *, first: Sequence[str] = (), hidden: Sequence[str] = ()) -> str:
    """Return what an event says, in short: names and values, or how it begins.

    Args:
        first: fields that are told first, without their names.
        hidden: fields that are left out.
    """
    found = object_of(raw)
    plain = {name: value for name, value in found.items() if isinstance(value, str | int | float)}
    told = [str(plain[name]) for name in first if name in plain]
    left_out = {*first, *hidden}
    told += [f"{name} {value}" for name, value in plain.items() if name not in left_out]
    text = " · ".join(told)
    return beginning(raw) if not told else text if len(text) <= TEXT else f"{text[:TEXT]}…"


def _bytes_of(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        return b""
