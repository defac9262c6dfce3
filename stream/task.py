"""The task file: what to predict, from what, with which model. One frozen pydantic model."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from model.spec import (
    RUNGS,
    Activation,
    Detector,
    Loss,
    NetworkName,
    OptimizerName,
    Rung,
    Spec,
)
from model.spec import Schedule as RateSchedule
from stream.errors import TaskError
from stream.fit import misfit
from stream.kinds import Category, Feature, FieldPath, Image, Number, Part, Text

NAME = r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,99}$"
TOPIC = r"^[a-zA-Z0-9._-]{1,249}$"
WORDS = 64  # of a text that are read in their order
WINDOW_VALUES = 65_536  # numbers that the neighbours' window may hold

Rate = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class TopicSpec:
    """Say what a topic must be; `None` leaves a setting to the broker and unchecked.

    `retention_ms` of -1 keeps records for ever.
    """

    name: str
    partitions: int = 1
    retention_ms: int | None = None
    max_message_bytes: int | None = None

    @property
    def settings(self) -> dict[str, int]:
        """Return the settings that are wanted, by Kafka's names."""
        wanted = {
            "retention.ms": self.retention_ms,
            "max.message.bytes": self.max_message_bytes,
        }
        return {key: value for key, value in wanted.items() if value is not None}


class Input(Part):
    """Where events come from and which of their fields say who, when and what."""

    topic: str = Field(pattern=TOPIC, description="The topic of raw events.")
    format: Literal["json", "cloudevents"] = Field(
        "json", description="Plain JSON, or structured CloudEvents 1.0 with the event in data."
    )
    id: FieldPath = Field("id", description="The field with the event's id.")
    entity: FieldPath | None = Field(None, description="The field with the entity.")
    time: FieldPath | None = Field(
        None, description="The field with the event time; default: the Kafka record's timestamp."
    )
    earliest: datetime = Field(
        datetime(1900, 1, 1, tzinfo=UTC), description="An event time before this is refused."
    )
    latest: datetime = Field(
        datetime(2100, 1, 1, tzinfo=UTC), description="An event time after this is refused."
    )
    max_bytes: int = Field(65_536, ge=64, le=16_777_216, description="Largest event taken.")
    recent_ids: int = Field(
        100_000, ge=0, description="Ids remembered to refuse a repeated event; 0 = not at all."
    )
    exclude: tuple[str, ...] = Field(
        (), description="Entities whose events are refused.", max_length=10_000
    )

    @model_validator(mode="after")
    def _excludable(self) -> Input:
        if self.exclude and not self.entity:
            raise ValueError("exclude names entities: entity must say which field holds them")
        return self


class Target(Part):
    """What to predict."""

    field: FieldPath = Field(description="The field with the label; null or absent = not known.")
    kind: Literal["classify", "regress"] = Field(description="Classes or a number.")
    classes: tuple[str, ...] = Field((), description="The classes, for classify.", max_length=1000)
    horizon: int = Field(
        0,
        ge=0,
        le=1000,
        description="Predict the label of this many events of the same entity ahead; 0 = its own.",
    )

    @model_validator(mode="after")
    def _classes(self) -> Target:
        if self.kind == "classify" and len(set(self.classes)) < 2:
            raise ValueError("classify needs classes = [...] with two different names at least")
        if self.kind == "regress" and self.classes:
            raise ValueError("regress takes no classes")
        return self


class Lags(Part):
    """What is remembered of each entity."""

    labels: int = Field(1, ge=0, le=1000, description="Last known labels used as inputs.")
    rows: int = Field(0, ge=0, le=1000, description="Earlier rows whose numbers are inputs.")
    traces: tuple[Annotated[float, Field(ge=1, le=1e6)], ...] = Field(
        (8.0, 64.0),
        description="Events that fading means remember; a row's distances from them are inputs.",
        max_length=16,
    )
    entities: int = Field(
        1024, ge=1, le=10_000_000, description="Entities remembered; the least recent leaves."
    )


class Schedule(Part):
    """How the learning rates change with the optimizer's steps."""

    kind: Literal["constant", "linear", "cosine", "exponential"] = Field(
        "constant", description="exponential halves the rate every so many steps."
    )
    steps: int = Field(100_000, ge=1, description="Steps to the end, or to the half.")
    end: float = Field(0.1, gt=0, le=1, description="Share of the rate that is left for ever.")
    warmup: int = Field(0, ge=0, description="First steps, in which the rate grows to its size.")


class Model(Part):
    """How it is learned."""

    network: NetworkName | None = Field(
        None, description="What the networks of the pool are; default: mlp, cnn2d with an image."
    )
    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (32, 32), description="Widths of the hidden layers."
    )
    activation: Activation = Field("relu", description="Of the hidden layers.")
    chunk: int = Field(
        1, ge=1, le=4096, description="Events per optimizer step; 1 = exact per-event learning."
    )
    loss: Loss | None = Field(
        None, description="Default: cross_entropy for classify, huber for regress."
    )
    learning_rate: Rate | Annotated[tuple[Rate, ...], Field(min_length=1, max_length=16)] = Field(
        (0.001, 0.005), description="Learning rate; several make a pool with a network for each."
    )
    optimizer: OptimizerName = Field("adam", description="Of the networks, by optax's name.")
    neighbours: int = Field(
        1000,
        ge=0,
        le=100_000,
        description="Newest rows whose nearest vote on a row; 0 = none.",
    )
    beta1: float = Field(0.0, ge=0, lt=1, description="Momentum of adam and its kin.")
    beta2: float = Field(0.999, ge=0, lt=1, description="Their memory of squared gradients.")
    clip: float = Field(0.0, ge=0, description="Largest norm of a gradient; 0 = any.")
    schedule: Schedule = Field(Schedule(), description="How the rate changes with time.")
    embedding: int = Field(8, ge=1, le=256, description="Dimensions of a hashed id's vector.")
    table_bits: int = Field(16, ge=4, le=26, description="log2 of the rows of the id table.")
    coverage: float = Field(0.9, gt=0, lt=1, description="Labels an interval should hold.")
    seed: int = Field(0, ge=0, description="Seed of the initial weights.")


class Drift(Part):
    """When to say that the world has changed."""

    detectors: tuple[Detector, ...] = Field(
        ("adwin", "page_hinkley"), description="What watches the error of every labelled event."
    )
    adwin_delta: float = Field(0.002, gt=0, lt=1, description="ADWIN's confidence.")
    page_hinkley_threshold: float = Field(50.0, gt=0, description="Page-Hinkley's alarm level.")
    ladder: tuple[Rung, ...] = Field(RUNGS, description="What is done about drift.")


class Topics(Part):
    """How the task's topics are made."""

    partitions: int = Field(1, ge=1, le=10_000, description="Partitions of every topic but ledger.")
    retention_hours: int = Field(168, ge=1, description="Hours that events and outputs are kept.")


class Task(Part):
    """One thing to predict from one stream."""

    name: str = Field(pattern=NAME, description="Prefix of the output topics.")
    input: Input
    target: Target
    features: dict[str, Feature] = Field(min_length=1, max_length=10_000)
    calendar: tuple[Literal["hour", "weekday", "year"], ...] = Field(
        (), description="Cycles of the event time that become inputs: sine and cosine of each."
    )
    hash_key_file: Path | None = Field(
        None, description="A file whose bytes key the hashing of words; default: the task's name."
    )
    lags: Lags = Lags()
    model: Model = Model()
    drift: Drift = Drift()
    topics: Topics = Topics()

    @model_validator(mode="after")
    def _one_image_that_fits(self) -> Task:
        images = [f"features.{name}" for name in self.of_kind(Image)]
        if len(images) > 1:
            raise ValueError(f"{' and '.join(images)} are images: expected one of them at most")
        coded = 4 * math.ceil(math.prod(self.image) / 3)
        if coded > self.input.max_bytes:
            raise ValueError(
                f"{images[0]} takes {coded} bytes in base64, "
                f"input.max_bytes = {self.input.max_bytes}: expected room for it"
            )
        return self

    def of_kind(self, kind: type[Any]) -> dict[str, Any]:
        """Give the features of one kind by name, in the order of the file."""
        return {name: f for name, f in self.features.items() if isinstance(f, kind)}

    @model_validator(mode="after")
    def _fits(self) -> Task:
        if problem := misfit(self.spec):
            raise ValueError(problem)
        return self

    @property
    def columns(self) -> list[str]:
        """Name the numeric columns of a row, in their order."""
        cycles = [f"{part}, {wave}" for part in self.calendar for wave in ("sine", "cosine")]
        return [*self.of_kind(Number), *cycles]

    @property
    def image(self) -> tuple[int, int, int]:
        """Give height, width and channels of the image; zeros where there is none."""
        return next((image.shape for image in self.of_kind(Image).values()), (0, 0, 0))

    @property
    def spec(self) -> Spec:
        """Say what the learner has to be."""
        numeric = len(self.columns)
        pixels = math.prod(self.image)
        network = self.model.network or ("cnn2d" if pixels else "mlp")
        texts = [text.max_tokens for text in self.of_kind(Text).values()]
        ordered = texts if network == "textcnn" else []
        categories, rates = len(self.of_kind(Category)), self.model.learning_rate
        return Spec(
            numeric=numeric,
            categories=categories,
            tokens=sum(texts),
            words=tuple(min(most, WORDS) for most in ordered),
            image=self.image,
            classes=len(self.target.classes),
            horizon=self.target.horizon,
            label_lags=self.lags.labels,
            numeric_lags=self.lags.rows,
            entities=self.lags.entities if self.input.entity else 0,
            **self.model.model_dump(exclude={"network", "learning_rate", "neighbours", "schedule"}),
            schedule=RateSchedule(**self.model.schedule.model_dump()),
            network=network,
            **self.drift.model_dump(),
            rates=rates if isinstance(rates, tuple) else (rates,),
            traces=self.lags.traces,
            neighbours=self._neighbours(pixels + numeric + categories),
        )

    def _neighbours(self, columns: int) -> int:
        """Bound the window: wide rows are remembered fewer, so that each costs about the same.

        Quantiles are left to the networks: a vote has none.
        """
        if self.model.loss == "pinball" or not columns:
            return 0
        return min(self.model.neighbours, WINDOW_VALUES // columns)

    def output(self, stage: str) -> str:
        """Name an output topic, such as `<task>.predictions`."""
        return f"{self.name}.{stage}"

    def topic_specs(self) -> list[TopicSpec]:
        """List the topics that this task reads and writes."""
        hours = 3_600_000 * self.topics.retention_hours
        batch = max(4 * self.input.max_bytes, 262_144)
        shared = (self.input.topic, *map(self.output, ("features", "predictions", "dead-letter")))
        single = map(self.output, ("metrics", "drift"))
        return [
            *(TopicSpec(name, self.topics.partitions, hours, batch) for name in shared),
            *(TopicSpec(name, 1, hours, batch) for name in single),
            TopicSpec(self.output("ledger"), 1, -1),
        ]


def load(path: Path) -> Task:
    """Read a task file.

    Raises:
        TaskError: naming the file, the key, the value and what was expected there.
    """
    try:
        return parse(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: not UTF-8 text") from error


def parse(text: str, origin: str) -> Task:
    """Read a task from TOML text; `origin` names it in errors."""
    try:
        return validate(tomllib.loads(text), origin)
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"{origin}: not TOML: {error}") from error


def validate(table: dict[str, Any], origin: str) -> Task:
    """Read a task from a table as TOML would give it."""
    try:
        return Task.model_validate(table)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        raise TaskError("\n".join(f"{origin}: {line}" for line in lines)) from error


def _explain(problem: Any) -> str:
    """Put one pydantic error into `key = value: what was expected`."""
    if not problem["loc"] and problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    place = problem["loc"]
    if place[:1] == ("features",):
        place = place[:2] + place[3:]  # between the name and the key pydantic says the kind
    where = ".".join(map(str, place)) or "task"
    if problem["type"] == "extra_forbidden":
        return f"{where}: no such key{_nearest(problem['loc'])}"
    if problem["type"] == "missing":
        return f"{where}: missing"
    shown = repr(problem["input"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if len(shown) > 60 else f"{where} = {shown}: {message}"


def _nearest(location: Iterable[Any]) -> str:
    """List the keys that are known where an unknown one was found."""
    parts: dict[str, type[Part]] = {
        name: form.annotation
        for name, form in Task.model_fields.items()
        if isinstance(form.annotation, type) and issubclass(form.annotation, Part)
    }
    first, *rest = [str(part) for part in location]
    known = parts.get(first) if rest else Task
    return f"; known: {', '.join(known.model_fields)}" if known else ""
