"""Say in words what a task will do."""

from __future__ import annotations

from collections.abc import Iterator

import jax

from headrace.model import pool, waiting
from headrace.model.spec import Spec
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.rows.numbers import LARGEST
from headrace.stream.task import Task
from headrace.stream.task.features import Aggregate, Category, Image, Number, Text
from headrace.stream.task.labels import Labels
from headrace.stream.training.newest_rows import NEWEST_BYTES
from headrace.stream.training.plugins import learner_of
from headrace.stream.training.row_files import row_type
from headrace.stream.training.turns import TURN_BYTES
from headrace.stream.training.waiting import WAITING_BYTES


def explain(task: Task) -> Iterator[str]:
    """Yield lines for a person: input, features, target, model, memory, topics.

    Raises:
        TaskError: a unit is unknown, or the hash key cannot be read; what the task names is not
            there, or does not fit.
    """
    Normalizer(task)
    yield from _input(task)
    yield from _features(task)
    yield from _model(task)
    partitions = task.topics.partitions
    yield f"reads       {task.input.topic} or {task.output('features')}, {partitions} partitions"
    if task.labels:
        yield from _labels(task.labels, task.spec, task.target.horizon)
    stages = [
        "predictions",
        "metrics",
        "drift",
        "dead-letter",
        *(["expired"] if task.labels else []),
    ]
    yield f"writes      {', '.join(map(task.output, stages))}"


def _input(task: Task) -> Iterator[str]:
    target = task.target
    source = "CloudEvents" if task.input.format == "cloudevents" else "JSON"
    yield f"task        {task.name}"
    yield (
        f"input       {source} events of up to {task.input.max_bytes:,} bytes from "
        f"{task.input.topic}; id from {task.input.id}, "
        f"time from {task.input.time or 'the Kafka record'}"
    )
    if task.input.weight:
        yield f"            {task.input.weight} says how much an event teaches, 0 to 1000 (1)"
    if task.input.propensity:
        yield f"            {task.input.propensity} is the chance that its label becomes known"
    what, free = "a number, with an interval", task.spec.open_classes
    if task.spec.classes:
        more = f"up to {free} more as they come"
        what = "a class: " + ", ".join([*target.classes, *([more] if free else [])])
    when = f", {target.horizon} events of the entity ahead" if target.horizon else ""
    yield f"predicts    {target.field}: {what}{when}"
    if task.spec.decides:
        yield f"decides     by {', '.join(target.decided_by)}: the class of least expected cost"


def _labels(labels: Labels, spec: Spec, horizon: int) -> Iterator[str]:
    """Tell where late labels come from, how long is waited for them, and what that takes."""
    yield f"labels      from {labels.topic}; id from {labels.id}, label from {labels.label}"
    row, places = waiting.row_bytes(spec), WAITING_BYTES + NEWEST_BYTES * spec.loads
    megabytes = (spec.waiting * row + labels.max_pending * places) / 1e6
    if horizon:
        megabytes += horizon * max(spec.entities, 1) * TURN_BYTES / 1e6
    hours = f", {labels.ttl_hours:g} hours long at most" if labels.ttl_hours else ""
    yield (
        f"            {labels.max_pending:,} events may wait for one{hours}; about "
        f"{megabytes:,.1f} MB of memory then"
    )
    if spec.loads:
        others = (labels.max_pending - spec.waiting) * row_type(spec).itemsize / 1e6
        yield (
            f"            with the rows of the newest {spec.waiting:,}; those of others are in "
            "temporary"
        )
        yield f"            files then, about {others:,.1f} MB"
    if labels.on_expiry is not None:
        yield f"            an event that expires without one gets {labels.on_expiry!r}"
    if labels.sample_negatives is not None:
        learned = f"{100 * labels.sample_negatives:g} %"
        yield f"            {learned} of the events with this label are learned"
    if labels.holdout:
        yield f"            {100 * labels.holdout:g} % of the events are marked as held out"


def _features(task: Task) -> Iterator[str]:
    for kind, word in ((Number, "numbers"), (Category, "categories"), (Text, "texts")):
        names = task.of_kind(kind)
        if names:
            yield f"{word:<12}{', '.join(names)}"
        if names and kind is Number:
            yield f"            to 15 digits, missing beyond {LARGEST:g}; ids are categories"
    for name, encoded in task.encoded.items():
        field = encoded.field or name
        yield f"encoded     {name}: {encoded.numbers} numbers of {field}, by {encoded.encoder}"
    for name, each in task.of_kind(Aggregate).items():
        what = f"{each.statistic} of {each.of}" if each.of else each.statistic
        within = f" within {each.seconds:,g} s" if each.seconds else ""
        yield f"aggregates  {name}: {what}{within} of {task.input.entity or 'the stream'}"
    if task.cross:
        yield f"crossed     {', '.join(' x '.join(names) for names in task.cross)}"
    for name, image in task.of_kind(Image).items():
        yield f"image       {name}: {' x '.join(map(str, image.shape))} bytes, in base64"
    if task.calendar:
        yield f"calendar    sine and cosine of the {', '.join(task.calendar)} (UTC)"


def _model(task: Task) -> Iterator[str]:
    lags, model = task.lags, task.model
    entity = task.input.entity
    whom = f"of each {entity}, {lags.entities:,} at most" if entity else "of the stream"
    yield f"remembers   {lags.labels} labels and {lags.rows} rows {whom}"
    layers = f": {' x '.join(map(str, model.hidden))} {model.activation}" if model.hidden else ""
    network = task.spec.network + ("" if task.spec.network in ("linear", "textbag") else layers)
    learner = learner_of(task)
    shapes = jax.eval_shape(learner.init)
    weights = sum(leaf.size for leaf in jax.tree.leaves(shapes.champion.params))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    pace = "each event" + (f", hidden layers after {model.chunk}" if model.chunk > 1 else "")
    rates = ", ".join(f"{rate:g}" for rate in task.spec.rates)
    yield f"learns      {task.spec.networks} networks ({network}), {weights:,} weights in all"
    how = f"{task.spec.objective}, {model.optimizer}"
    yield f"            by {how}, at rates of {rates}, after {pace}"
    yield f"mixes       {len(pool.names(task.spec))} opinions: {'; '.join(pool.names(task.spec))}"
    if task.spec.ids:
        rows = 1 << model.table_bits
        yield f"            and a table of {rows:,} hashed ids of {model.embedding} dimensions"
    watched, rungs = (
        ", ".join(names) or "nothing" for names in (task.drift.detectors, task.drift.ladder)
    )
    yield f"watches     its error by {watched}; against drift: {rungs}"
    if task.metrics:
        yield f"measures    {', '.join(task.metrics)}, too"
    yield f"state       {size / 1e6:.1f} MB, whatever the length of the stream"
