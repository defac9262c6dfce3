"""The tables of a task file, each with its keys, their ranges and defaults, but two."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
)

from headrace.model.spec import RUNGS, Activation, Detector, Loss, NetworkName, OptimizerName, Rung
from headrace.stream.task import keras_file
from headrace.stream.task.part import (
    PLUGIN,
    FieldPath,
    Mistake,
    Part,
    PluginName,
    Real,
    Whole,
    beside,
    once,
)

TOPIC = r"^[a-zA-Z0-9._-]{1,249}$"
MOST_EVENT_BYTES = 16_777_216
LONGEST_ID = 256  # characters
LONGEST_KEY = 65_536  # bytes of an event's key in Kafka, which its prediction has too

Rate = Annotated[Real, Field(gt=0, le=1)]


def _moment(value: Any) -> Any:
    """Refuse what pydantic would take for a time, and nobody means: a number of seconds."""
    if not isinstance(value, str | date):
        raise ValueError("expected a time such as 2026-03-01T12:00:00Z")
    return value


Moment = Annotated[datetime, BeforeValidator(_moment)]


def _ours_or_other(names: Any, *others: str) -> WithJsonSchema:
    """Let the schema say our own names, and what others look like."""
    ours = {"type": "string", "enum": [*get_args(names)]}
    patterns = ({"type": "string", "pattern": other} for other in (PLUGIN, *others))
    return WithJsonSchema({"anyOf": [ours, *patterns]})


def _network(value: Any, other: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Read a name, which may be that of a file beside the task's."""
    if isinstance(value, str) and keras_file.is_keras(value):
        if keras_file.is_pinned(value):
            return value
        return keras_file.pin(beside(Path(value.removeprefix(keras_file.PREFIX)), info))
    return other(value)


Network = Annotated[
    PluginName, WrapValidator(_network), _ours_or_other(NetworkName, f"^{keras_file.PREFIX}")
]
Watcher = Annotated[PluginName, _ours_or_other(Detector)]


class Input(Part):
    """Where events come from and which of their fields say who, when and what."""

    topic: str = Field(pattern=TOPIC, description="The topic of raw events.")
    format: Literal["json", "cloudevents"] = Field(
        "json", description="Plain JSON, or structured CloudEvents 1.0 with the event in data."
    )
    id: FieldPath = Field("id", description="The field with the event's id.")
    entity: FieldPath | None = Field(
        None,
        description="The field with the entity, such as a station; lags are per entity.",
    )
    time: FieldPath | None = Field(
        None, description="The field with the event time; default: the Kafka record's timestamp."
    )
    weight: FieldPath | None = Field(
        None,
        description="The field with the sample weight, 0 (not learned) to 1000; null or absent = "
        "1. Metrics are not weighted.",
    )
    propensity: FieldPath | None = Field(
        None,
        description="The field with the chance that the event's label becomes known, above 0 to 1; "
        "null or absent = 1. The event teaches by its inverse, 20 times at most.",
    )
    earliest: Moment = Field(
        datetime(1900, 1, 1, tzinfo=UTC), description="Events with an earlier time are rejected."
    )
    latest: Moment = Field(
        datetime(2100, 1, 1, tzinfo=UTC), description="Events with a later time are rejected."
    )
    max_bytes: Whole = Field(
        65_536, ge=64, le=MOST_EVENT_BYTES, description="Largest event accepted."
    )
    dayfirst: bool | None = Field(
        None,
        strict=True,
        description="How dates such as 03/04/2026 are read: true = 3 April, false = 4 March; "
        "default: they are rejected.",
    )
    non_finite: Literal["refuse", "missing"] = Field(
        "refuse",
        description="NaN and Infinity as literals, which JSON does not have: reject the event, or "
        "count the value as missing.",
    )
    recent_ids: Whole = Field(
        100_000, ge=0, description="Ids remembered to reject duplicate events; 0 = none."
    )
    exclude: tuple[str, ...] = Field(
        (), description="Entities whose events are rejected.", max_length=10_000
    )

    @field_validator("earliest", "latest")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value if value.tzinfo else value.replace(tzinfo=UTC)

    def mistakes(self) -> Iterator[Mistake]:
        """Yield what is wrong about the times and entities that are let in."""
        if self.earliest > self.latest:
            yield Mistake("earliest", f"expected none after latest = {self.latest:%FT%TZ}")
        if self.exclude and not self.entity:
            yield Mistake(
                "exclude", "exclude names entities: expected entity, the field that holds them"
            )
        yield from once("exclude", self.exclude)


class Lags(Part):
    """What is remembered of each entity."""

    labels: Whole = Field(1, ge=0, le=1000, description="Lagged labels used as inputs.")
    rows: Whole = Field(0, ge=0, le=1000, description="Lagged rows whose numbers are inputs.")
    traces: tuple[Annotated[Real, Field(ge=1, le=1e6)], ...] = Field(
        (8.0, 64.0),
        description="Spans, in events, of moving averages; a row's distances from them are inputs.",
        max_length=16,
    )
    entities: Whole = Field(
        1024,
        ge=1,
        le=10_000_000,
        description="Entities remembered; the least recently seen are evicted.",
    )

    def mistakes(self) -> Iterator[Mistake]:
        """Yield spans that stand there twice."""
        yield from once("traces", self.traces)


class Schedule(Part):
    """How the learning rates change with the optimizer's steps."""

    kind: Literal["constant", "linear", "cosine", "exponential"] = Field(
        "constant", description="Shape; exponential halves the rate every `steps` steps."
    )
    steps: Whole = Field(100_000, ge=1, description="Optimizer steps to the end, or per halving.")
    end: Real = Field(0.1, gt=0, le=1, description="Final fraction of the rate.")
    warmup: Whole = Field(0, ge=0, description="Steps of linear warm-up.")


Rates = Annotated[
    Annotated[Rate, Tag("[number]")]
    | Annotated[tuple[Rate, ...], Field(min_length=1, max_length=16), Tag("[list]")],
    Discriminator(lambda value: "[list]" if isinstance(value, list | tuple) else "[number]"),
]


class Model(Part):
    """How it is learned."""

    network: Network | None = Field(
        None,
        description="Architecture of the networks; default: mlp, with an image cnn2d. Others come "
        "from installed packages (entry points of the group headrace.networks), or are a Keras "
        "model: keras:PATH, relative to the task file.",
    )
    hidden: tuple[Annotated[Whole, Field(ge=1, le=4096)], ...] = Field(
        (32, 32), description="Widths of the hidden layers."
    )
    activation: Activation = Field("relu", description="Activation function of the hidden layers.")
    chunk: Whole = Field(
        1,
        ge=1,
        le=4096,
        description="Events per optimizer step of hidden layers and embeddings; 1 = exact "
        "per-event learning. All other parts learn from each event.",
    )
    loss: Loss | None = Field(
        None, description="Default: cross_entropy for classify, huber for regress."
    )
    learning_rate: Rates = Field(
        (0.001, 0.005), description="Learning rate; several make a pool with a network for each."
    )
    optimizer: OptimizerName = Field(
        "adam", description="Optimizer of the networks, by optax's name."
    )
    neighbours: Whole = Field(
        1000,
        ge=0,
        le=100_000,
        description="Window of the nearest-neighbour members, in rows; 0 = none, as with the "
        "pinball loss and with labels.on_expiry.",
    )
    members: tuple[PluginName, ...] = Field(
        (),
        max_length=16,
        description="Further members of the pool, by the names that installed packages give them "
        "(entry points of the group headrace.members).",
    )
    beta1: Real = Field(
        0.0, ge=0, lt=1, description="First-moment decay of Adam and its variants (momentum)."
    )
    beta2: Real = Field(
        0.999, ge=0, lt=1, description="Second-moment decay of Adam and its variants."
    )
    clip: Real = Field(0.0, ge=0, description="Gradient clipping by norm; 0 = none.")
    schedule: Schedule = Field(Schedule(), description="Learning rate schedule.")
    embedding: Whole = Field(8, ge=1, le=256, description="Dimensions of the embeddings.")
    table_bits: Whole = Field(
        16, ge=4, le=26, description="log2 of the rows of the embedding table."
    )
    coverage: Real = Field(
        0.9, gt=0, lt=1, description="Nominal coverage of the prediction interval."
    )
    seed: Whole = Field(0, ge=0, lt=2**63, description="Seed of the initial weights.")
    explain: Real | None = Field(
        None,
        ge=0,
        le=1,
        description="Fraction of the predictions that are explained: which inputs drove them; 0 = "
        "on request only; default: none, not on request either.",
    )

    def mistakes(self) -> Iterator[Mistake]:
        """Yield learning rates and members that stand there twice."""
        if isinstance(self.learning_rate, tuple):
            yield from once("learning_rate", self.learning_rate)
        yield from once("members", self.members)


class Drift(Part):
    """When to say that the world has changed."""

    detectors: tuple[Watcher, ...] = Field(
        ("adwin",),
        description="Drift detectors on the error of every labelled event. Others come from "
        "installed packages (entry points of the group headrace.detectors).",
    )
    adwin_delta: Real = Field(0.002, gt=0, lt=1, description="ADWIN's confidence.")
    page_hinkley_threshold: Real = Field(50.0, gt=0, description="Page-Hinkley's threshold.")
    ladder: tuple[Rung, ...] = Field(RUNGS, description="Responses to drift; [] = none.")

    def mistakes(self) -> Iterator[Mistake]:
        """Yield detectors and rungs that stand there twice."""
        yield from once("detectors", self.detectors)
        yield from once("ladder", self.ladder)


class Topics(Part):
    """How the task's topics are made."""

    partitions: Whole = Field(
        1,
        ge=1,
        le=10_000,
        description="Partitions of the raw topic, if it is created; outputs have as many.",
    )
    retention_hours: Whole = Field(
        168,
        ge=1,
        le=10_000_000,
        description="Retention of events and outputs that are created, in hours.",
    )
