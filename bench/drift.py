"""How soon learners are back after a drift, and how seldom detectors cry wolf without one.

Reaction: River's generators, 20,000 events, then 5,000 with every label the next class. A learner
is back when the mean of its last 200 answers, all of them after the change, is within one point of
its accuracy in the 5,000 events before: after 200 events at the earliest.

False alarms: errors that are as frequent all the time, for every detector with its defaults. Ours
watch a million, River's the first hundred thousand of the same, as they take longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from statistics import median
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from headrace.model.spec import Detector
from headrace.stream.errors import UsageError

BEFORE, AFTER, WINDOW, SEEDS = 20_000, 5_000, 200, (1, 2)
RATES, WATCHED, WATCHED_BY_RIVER = (0.05, 0.2, 0.4), 1_000_000, 100_000
Stream = tuple[NDArray[np.float32], NDArray[np.int64], int]  # rows, labels, classes


def streams() -> Iterator[tuple[str, int, Stream]]:
    """Draw each stream with each seed."""
    from river.datasets import synth

    made: dict[str, Callable[[int], Any]] = {
        "hyperplane": lambda seed: synth.Hyperplane(seed, n_features=10, noise_percentage=0.05),
        "sea": lambda seed: synth.SEA(0, noise=0.1, seed=seed),
        "rbf": lambda seed: synth.RandomRBF(seed, seed, 3, 10, 30),
        "agrawal": lambda seed: synth.Agrawal(0, seed=seed),
    }
    for name, make in made.items():
        for seed in SEEDS:
            drawn = list(make(seed).take(BEFORE + AFTER))
            rows = np.array([list(x.values()) for x, _ in drawn], np.float32)
            labels = np.array([int(y) for _, y in drawn])
            classes = int(labels.max()) + 1
            labels[BEFORE:] = (labels[BEFORE:] + 1) % classes
            yield name, seed, (rows, labels, classes)


def headrace(stream: Stream) -> NDArray[np.bool_]:
    """Return which answers were right; a task's defaults."""
    from headrace.model.batch import empty_batch
    from headrace.model.learner import make_learner, warm_up
    from headrace.stream.task import validate

    rows, labels, classes = stream
    task = {
        "name": "bench-drift",
        "input": {"topic": "bench"},
        "target": {
            "field": "target",
            "kind": "classify",
            "classes": [str(at) for at in range(classes)],
        },
        "features": {f"x{at}": {"kind": "number"} for at in range(rows.shape[1])},
    }
    spec = validate(task, "bench").spec
    learner, batch = make_learner(spec), empty_batch(spec, len(labels))
    batch.numeric[:], batch.label[:] = rows, labels
    _, outcome = learner.run(warm_up(learner, len(labels)), batch, np.int32(len(labels)))
    return np.asarray(np.asarray(outcome.published).argmax(1) == labels)


def river(make: Callable[[], Any]) -> Callable[[Stream], NDArray[np.bool_]]:
    """Return which answers of a model of River's were right."""

    def answer(stream: Stream) -> NDArray[np.bool_]:
        rows, labels, _ = stream
        model, right = make(), []
        for values, label in zip(rows.tolist(), labels.tolist(), strict=True):
            x = dict(enumerate(values))
            right.append(model.predict_one(x) == label)
            model.learn_one(x, label)
        return np.array(right)

    return answer


def back(right: NDArray[np.bool_]) -> int:
    """Count events to the end of the first window that is good again; AFTER if there is none."""
    wanted = right[BEFORE - 5000 : BEFORE].mean() - 0.01
    means = np.convolve(right[BEFORE:], np.ones(WINDOW) / WINDOW, "valid")
    good = np.flatnonzero(means >= wanted)
    return int(good[0]) + WINDOW if len(good) else AFTER


def drift(on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure both.

    Raises:
        UsageError: River is not installed.
    """
    if find_spec("river") is None:
        raise UsageError("bench drift: River is not installed; run `uv sync`")
    return {"false_alarms": false_alarms(on_progress), "reaction": reaction(on_progress)}


def reaction(on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Measure each learner on each stream: median and worst of the seeds, and accuracies."""
    from river import forest, tree

    learners = {
        "headrace": headrace,
        "river_arf10": river(lambda: forest.ARFClassifier(n_models=10, seed=1)),
        "river_hat": river(lambda: tree.HoeffdingAdaptiveTreeClassifier(seed=1)),
    }
    runs: dict[str, dict[str, list[NDArray[np.bool_]]]] = {name: {} for name in learners}
    for name, seed, stream in streams():
        for learner, answer in learners.items():
            runs[learner].setdefault(name, []).append(answer(stream))
        on_progress(f"{name}, seed {seed}")
    return {
        learner: {name: _sum_up(rights) for name, rights in by_stream.items()}
        for learner, by_stream in runs.items()
    }


def _sum_up(rights: list[NDArray[np.bool_]]) -> dict[str, float]:
    found = [back(right) for right in rights]
    before, after = (
        np.mean([right[part].mean() for right in rights])
        for part in (slice(BEFORE - 5000, BEFORE), slice(BEFORE, BEFORE + 1000))
    )
    return {
        "back": median(found),
        "worst": max(found),
        "accuracy_before": round(float(before), 4),
        "accuracy_next_1000": round(float(after), 4),
    }


def false_alarms(on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Count alarms on errors of each of RATES: by us, and, of the first ones, by both."""
    found: dict[str, Any] = {}
    for name in get_args(Detector):
        ours, both, theirs = 0, 0, 0
        for seed, rate in enumerate(RATES):
            errors = (np.random.default_rng(seed).random(WATCHED) < rate).astype(np.float32)
            fired = _fired(name, errors)
            ours += int(fired.sum())
            both += int(fired[:WATCHED_BY_RIVER].sum())
            theirs += _fired_in_river(name, errors[:WATCHED_BY_RIVER])
        events = len(RATES) * WATCHED
        found[name] = {
            "events": events,
            "alarms": ours,
            "events_between": round(events / ours) if ours else None,
            "of_the_first": {
                "events": len(RATES) * WATCHED_BY_RIVER,
                "ours": both,
                "river": theirs,
            },
        }
        on_progress(f"{name}: {ours} alarms in {events:,} events")
    return found


@cache
def _watcher(name: Detector) -> tuple[Any, Any]:
    import jax
    import jax.numpy as jnp

    from headrace.model.drift import DETECTORS
    from headrace.model.spec import Spec

    fold = DETECTORS[name](Spec(numeric=1))

    def one(state: Any, error: Any) -> tuple[Any, Any]:
        state, alarm = fold.update(state, (error, jnp.bool_(True)))
        return state, alarm.fired

    return fold, jax.jit(lambda state, errors: jax.lax.scan(one, state, errors))


def _fired(name: Detector, errors: NDArray[np.float32]) -> NDArray[np.bool_]:
    fold, watch = _watcher(name)
    return np.asarray(watch(fold.init(), errors)[1])


def _fired_in_river(name: Detector, errors: NDArray[np.float32]) -> int:
    from river.drift import ADWIN, KSWIN, PageHinkley, binary

    made: dict[Detector, Callable[[], Any]] = {
        "adwin": ADWIN,
        "page_hinkley": PageHinkley,
        "ddm": binary.DDM,
        "eddm": binary.EDDM,
        "hddm_a": binary.HDDMA,
        "hddm_w": binary.HDDMW,
        "kswin": lambda: KSWIN(seed=0),
    }
    detector, alarms = made[name](), 0
    whole = name in ("adwin", "page_hinkley", "kswin")
    for error in errors.tolist():
        detector.update(error if whole else bool(error))
        alarms += detector.drift_detected
    return alarms
