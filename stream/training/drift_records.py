"""What the core tells of drift, in the words of the task: the records of `<task>.drift`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.model import ladder, pool
from headrace.model.batch import EVIDENCE
from headrace.model.spec import Spec
from headrace.stream.events import DriftAlarm, DriftRecord, LadderStep, Moved
from headrace.stream.rows.classes import Classes
from headrace.stream.rows.rows import Rows


class Told(NamedTuple):
    """Hold what an Outcome says of drift, a line for each of n rows."""

    alarms: NDArray[np.float32]  # [n, D, 6]
    rungs: NDArray[np.float32]  # [n, 10]
    lost: NDArray[np.float32]  # [n]
    moved: NDArray[np.float32]  # [n, 3, 3]


def drift_records(
    spec: Spec,
    columns: Sequence[str],
    classes: Classes,
    rows: Rows,
    step: NDArray[np.int64],
    told: Told,
) -> list[DriftRecord]:
    """Return alarms, then what the ladder did, then the members that began anew, row by row.

    Args:
        columns: what the numbers of a row are called, and behind them the prediction.
        step: int64[n], optimizer steps behind each prediction.
    """
    found: dict[int, list[DriftRecord]] = {}
    for at, which in np.argwhere(told.alarms[:, :, 0] > 0).tolist():
        moved = [Moved(columns[int(nth) - 1], *by) for nth, *by in told.moved[at].tolist() if nth]
        alarm = DriftAlarm(
            spec.detectors[which],
            *_where(rows, step, at),
            **dict(zip(EVIDENCE[1:], told.alarms[at, which, 1:].tolist(), strict=True)),
            moved=moved,
        )
        found.setdefault(at, []).append(alarm)
    for at in np.flatnonzero(told.rungs.any(1)).tolist():
        where = _where(rows, step, at)
        found.setdefault(at, []).extend(_steps(classes, told.rungs[at], where))
    names = pool.resettable(spec)
    for at in np.flatnonzero(told.lost).tolist():
        where = _where(rows, step, at)
        found.setdefault(at, []).extend(
            LadderStep("reset", *where, member=name)
            for place, name in enumerate(names)
            if int(told.lost[at]) >> place & 1
        )
    return [record for at in sorted(found) for record in found[at]]


Where = tuple[str | int, int, int, int, int]


def _where(rows: Rows, step: NDArray[np.int64], at: int) -> Where:
    """Say at which row it was, as a drift record does."""
    return rows.id[at], int(step[at]), int(rows.time_ms[at]), rows.partition[at], rows.offset[at]


def _steps(names: Classes, told: NDArray[Any], where: Where) -> list[DriftRecord]:
    """Read what the ladder tells of a row: the actions, and the proof of those that have one."""
    at_once, one, other, statistic, later, rival, events, *gains = told.tolist()
    steps: list[DriftRecord] = []
    for place, action in enumerate(ladder.STEPS):
        if not int(at_once + later) >> place & 1:
            continue
        if action in ladder.PROVED:
            steps.append(LadderStep(action, *where, ladder.RIVALS[int(rival)], int(events), *gains))
        elif action == "relabel":
            classes = [names[int(at)] for at in (one, other)]
            steps.append(LadderStep(action, *where, exchanged=classes, statistic=statistic))
        else:
            steps.append(LadderStep(action, *where))
    return steps
