"""What a service says of itself in its topics, and whether it needs a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.tail import tail
from headrace.stream.ledger import ledger
from headrace.stream.task import Task

NEWEST = 300  # records of metrics that are looked at: of five minutes, as there is one a second
REFUSED = 100  # dead letters that are counted by their codes
SILENT_S = 30.0  # without a sign though events wait
GROWING_S = 60.0  # so long lag has to grow
BEHIND_S = 10.0  # of work, that may wait without being told
UNSAVED_S = 300.0  # since the last checkpoint
UNLABELLED_S = 600.0  # without a label though events wait for one
FEW = 100  # events, of which no share is told
POLL_S = 2.0


class Trouble(NamedTuple):
    """Tell why a person is needed."""

    code: str  # never, stopped, lag, partition, checkpoint, refused or labels
    told: str  # what is wrong, and what to do


@dataclass(frozen=True)
class Status:
    """Say how a service stands, as of its last metrics."""

    task: str
    metrics: dict[str, Any] | None  # the newest record of `<task>.metrics`
    age_s: float | None  # of that record
    waiting: dict[int, int]  # offsets that are still to be taken, by partition
    refused: dict[str, int]  # of the newest dead letters, how many have each code
    alarm: dict[str, Any] | None  # the newest record of `<task>.drift`
    troubles: list[Trouble]

    def as_json(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        told = [trouble._asdict() for trouble in self.troubles]
        return asdict(self) | {"troubles": told, "ok": not self.troubles}


def look(task: Task, kafka: KafkaConnection, *, now_ms: int, most_refused: float) -> Status:
    """Read how a service stands from its topics; whether it runs does not matter.

    Args:
        now_ms: Unix time.
        most_refused: share of the events in the last minutes that may be refused.

    Raises:
        TopicError: a topic is missing.
        BrokerError: no broker.
    """
    window = _of_one_run(_last(kafka, task.output("metrics"), NEWEST, "offsets"))
    newest = window[-1] if window else None
    waiting = _waiting(task, kafka, newest["offsets"] if newest else {})
    age_s = None if newest is None else max(now_ms - newest["time_ms"], 0) / 1000
    refused = _last(kafka, task.output("dead-letter"), REFUSED, "code")
    alarms = _last(kafka, task.output("drift"), 1, "kind")
    if newest is None:
        begun = ledger.tip(kafka, task.output("ledger")) is not None
        troubles = [_never(task, begun=begun)]
    else:
        offsets = {int(partition): at for partition, at in newest["offsets"].items()}
        is_silent = age_s is not None and age_s > SILENT_S
        stopped = is_silent and any(waiting.values()) and _is_readable(task, kafka, offsets)
        label_ms = None
        if task.labels:
            newest_labels = tail(kafka, task.labels.topic, lines=1)
            label_ms = max((record.timestamp_ms for record in newest_labels), default=None)
        troubles = find(
            window,
            waiting,
            stopped=stopped,
            now_ms=now_ms,
            label_ms=label_ms,
            most_refused=most_refused,
        )
    codes = Counter(str(letter["code"]) for letter in refused[-REFUSED:])
    alarm = alarms[-1] if alarms else None
    return Status(task.name, newest, age_s, waiting, dict(codes.most_common()), alarm, troubles)


def find(
    window: Sequence[Mapping[str, Any]],
    waiting: Mapping[int, int],
    *,
    stopped: bool,
    now_ms: int,
    label_ms: int | None,
    most_refused: float,
) -> list[Trouble]:
    """Find what a person has to see to.

    Args:
        window: the newest metrics, one at least, the newest one last.
        waiting: offsets that are still to be taken, by partition.
        stopped: whether events wait, and nobody has told of metrics for SILENT_S.
        now_ms: Unix time.
        label_ms: when the newest late label came; None if none ever did.
        most_refused: share that may be refused.
    """
    newest, age_s = window[-1], (now_ms - window[-1]["time_ms"]) / 1000
    found = list[Trouble]()
    if stopped:
        told = (
            f"{sum(waiting.values()):,} offsets wait, and the learner gave its last sign "
            f"{spell(age_s)} ago: start it again (`headrace learn`); its exit code says why it "
            "ended (docs: operations)"
        )
        return [Trouble("stopped", told), *_refused(window, most_refused)]
    then_ms = newest["time_ms"] - GROWING_S * 1000
    if before := next((old for old in reversed(window) if old["time_ms"] <= then_ms), None):
        found += _behind(before, newest, waiting)
    unsaved_s = newest["checkpoint_age_s"]
    if unsaved_s is None and window[0]["checkpoint_age_s"] is None:
        unsaved_s = (newest["time_ms"] - window[0]["time_ms"]) / 1000
    if unsaved_s is not None and unsaved_s > UNSAVED_S:
        told = (
            f"the last checkpoint is {spell(unsaved_s)} old: a restart learns again what came "
            "since; see what the learner says of its state directory (a full disk?)"
        )
        found.append(Trouble("checkpoint", told))
    found += _refused(window, most_refused)
    found += _labels(newest, label_ms)
    return found


def spell(seconds: float) -> str:
    """Write a duration: `42 s`, `5 min`, `3.0 h`, `2.1 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def _behind(
    before: Mapping[str, Any], newest: Mapping[str, Any], waiting: Mapping[int, int]
) -> list[Trouble]:
    """Tell of lag that grew since a record of before, and of partitions that stand still."""
    seconds = (newest["time_ms"] - before["time_ms"]) / 1000
    rate = (newest["events"] - before["events"]) / seconds
    moved = {
        partition: at - before["offsets"].get(partition, 0)
        for partition, at in newest["offsets"].items()
    }
    found = list[Trouble]()
    if newest["lag"] > before["lag"] and newest["lag"] > BEHIND_S * rate:
        told = (
            f"{newest['lag']:,} events wait, {newest['lag'] - before['lag']:,} more than "
            f"{spell(seconds)} ago; {rate:,.0f} a second are learned: give it more of a core, or a "
            "smaller model"
        )
        found.append(Trouble("lag", told))
    for partition, count in sorted(waiting.items()):
        if count and not moved.get(str(partition), 0) and any(moved.values()):
            told = (
                f"partition {partition}: {count:,} offsets wait, and none was taken for "
                f"{spell(seconds)} while others were: perhaps a producer's transaction is still "
                "open there (kafka-transactions.sh find-hanging)"
            )
            found.append(Trouble("partition", told))
    return found


def _refused(window: Sequence[Mapping[str, Any]], most: float) -> list[Trouble]:
    """Tell of a share of refused events above `most`, in the window, or of all if it is one."""
    newest, oldest = window[-1], window[0]
    names = ("rejected", "repeated", "events")
    since = {name: newest[name] - (oldest[name] if len(window) > 1 else 0) for name in names}
    refused = since["rejected"] + since["repeated"]
    came = refused + since["events"]
    if came < FEW or refused <= most * came:
        return []
    told = (
        f"{refused:,} of the last {came:,} events were refused ({refused / came:.0%}): "
        "`headrace dead-letters` says why, and sends them again once that is mended"
    )
    return [Trouble("refused", told)]


def _labels(newest: Mapping[str, Any], label_ms: int | None) -> list[Trouble]:
    """Tell that no label comes while events do, which wait longer than others did before."""
    labels = newest.get("labels")
    if not labels or not labels["pending"] or label_ms is None:
        return []
    usual_ms = (labels["delay"] or {}).get("p99_ms") or 0
    silent_s = (newest["time_ms"] - label_ms) / 1000
    if silent_s <= max(UNLABELLED_S, 3 * usual_ms / 1000):
        return []
    told = (
        f"no label came for {spell(silent_s)}, and {labels['pending']:,} events wait for theirs: "
        "see who writes the labels"
    )
    return [Trouble("labels", told)]


def _never(task: Task, *, begun: bool) -> Trouble:
    if begun:
        return Trouble(
            "stopped",
            "a run began, and there are no metrics of it that this version reads: is `headrace "
            "learn` running?",
        )
    return Trouble("never", f"nothing was learned yet: headrace learn {task.name}.toml")


def _waiting(task: Task, kafka: KafkaConnection, offsets: Mapping[str, int]) -> dict[int, int]:
    with closing(kafka.source(task.input.topic)) as source:
        return {
            partition: max(end - offsets.get(str(partition), source.begins[partition]), 0)
            for partition, end in sorted(source.ends().items())
        }


def _is_readable(task: Task, kafka: KafkaConnection, offsets: dict[int, int]) -> bool:
    """Return whether there is a record behind some offsets: markers of transactions are none."""
    with closing(kafka.source(task.input.topic, offsets=offsets, or_later=True)) as source:
        return bool(source.poll(1, POLL_S))


def _last(kafka: KafkaConnection, topic: str, lines: int, key: str) -> list[dict[str, Any]]:
    """Return the newest records of each partition in the order of time, but what is not ours."""
    records = sorted(tail(kafka, topic, lines=lines), key=lambda record: record.timestamp_ms)
    return [each.value for each in records if isinstance(each.value, dict) and key in each.value]


def _of_one_run(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the newest ones, up to where a run began anew and counts with it."""
    found = list[dict[str, Any]]()
    for each in metrics:
        if found and each["events"] < found[-1]["events"]:
            found.clear()
        found.append(each)
    return found
