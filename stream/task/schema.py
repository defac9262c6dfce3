"""The tables of a task file with their keys, ranges and defaults; see also features, memory."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
    model_validator,
)

from headrace.model.spec import RUNGS, Activation, Detector, Loss, NetworkName, OptimizerName, Rung
from headrace.stream.task import keras_file
from headrace.stream.task.features import (
    PLUGIN,
    READING,
    Decimal,
    Duration,
    FieldPath,
    Missing,
    Part,
    PluginName,
    Quantity,
    Thousands,
    beside,
)

TOPIC = r"^[a-zA-Z0-9._-]{1,249}$"
MOST_CLASSES = 1000
LONGEST_CLASS = 255  # bytes of a class's name in UTF-8, where it is taken up in mid-stream
MOST_EVENT_BYTES = 16_777_216
LONGEST_ID = 256  # characters
LONGEST_KEY = 65_536  # bytes of an event's key in Kafka, which its prediction has too
DECISIONS = ("class_weight", "threshold", "costs")  # keys of which one may be given
MOST_NAMED = 100  # classes of which each has scores of its own in a report
ROOM = 16  # classes, where none is named

Rate = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Cost = Annotated[float, Field(ge=0, le=1e6)]


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
    earliest: datetime = Field(
        datetime(1900, 1, 1, tzinfo=UTC), description="Events with an earlier time are rejected."
    )
    latest: datetime = Field(
        datetime(2100, 1, 1, tzinfo=UTC), description="Events with a later time are rejected."
    )
    max_bytes: int = Field(
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
    recent_ids: int = Field(
        100_000, ge=0, description="Ids remembered to reject duplicate events; 0 = none."
    )
    exclude: tuple[str, ...] = Field(
        (), description="Entities whose events are rejected.", max_length=10_000
    )

    @field_validator("earliest", "latest")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        return value if value.tzinfo else value.replace(tzinfo=UTC)

    @model_validator(mode="after")
    def _excludable(self) -> Input:
        if self.exclude and not self.entity:
            raise ValueError("exclude names entities: entity must say which field holds them")
        return self


ClassWeight = Annotated[
    Annotated[Literal["balanced"], Tag("[name]")] | Annotated[dict[str, Cost], Tag("[table]")],
    Discriminator(lambda value: "[table]" if isinstance(value, dict) else "[name]"),
]


class Target(Quantity):
    """What to predict."""

    field: FieldPath = Field(description="The field with the label; null or absent = unknown.")
    kind: Literal["classify", "regress"] = Field(description="Classification or regression.")
    unit: str | None = Field(
        None, description="What may stand beside the number in a text, such as kWh, $ or %."
    )
    missing: Missing = ()
    decimal: Decimal = None
    thousands: Thousands = None
    duration: Duration = False
    classes: tuple[Annotated[str, Field(max_length=LONGEST_CLASS)], ...] = Field(
        (),
        description="The classes, for classify; the order is that of probabilities.",
        max_length=MOST_CLASSES,
    )
    max_classes: int | None = Field(
        None,
        ge=2,
        le=MOST_CLASSES,
        description="Most classes, declared and new; default: as many as classes declares, "
        f"{ROOM} if none.",
    )
    class_weight: ClassWeight | None = Field(
        None,
        description="Misclassification cost by true class (others: 1); balanced: inversely to the "
        "frequency of the class.",
    )
    threshold: Annotated[dict[str, Share], Field(min_length=1, max_length=1)] | None = Field(
        None,
        description="Of two classes one, and the least probability at which it is predicted.",
    )
    costs: dict[str, dict[str, Cost]] | None = Field(
        None,
        description="Cost matrix: true class (outer key), predicted class (inner key); default: 1, "
        "and 0 for the true class.",
    )
    horizon: int = Field(
        0,
        ge=0,
        le=1000,
        description="Predict the label of this many events of the same entity ahead; 0 = its own.",
    )

    @property
    def room(self) -> int:
        """Count the classes that there is room for; 0 if the target is a number."""
        if self.kind == "regress":
            return 0
        return self.max_classes or len(self.classes) or ROOM

    @property
    def decided_by(self) -> list[str]:
        """Name the keys that say what misses cost."""
        return [key for key in DECISIONS if getattr(self, key) is not None]

    @property
    def cost_rows(self) -> tuple[tuple[float, ...], ...]:
        """Return what predicting each class (columns) costs by the true one (rows); () if 1."""
        names: list[str | int] = [*self.classes, *range(len(self.classes), self.room)]
        costs: dict[Any, dict[Any, float]] = {**(self.costs or {})}
        if self.threshold:
            ((name, share),) = self.threshold.items()
            share *= 1.0 - 1e-6  # a probability that is equal, but for rounding, is enough
            costs = {true: dict.fromkeys(names, share) for true in names}
            costs[name] = dict.fromkeys(names, 1.0 - share)
        elif isinstance(self.class_weight, dict):
            costs = {true: dict.fromkeys(names, cost) for true, cost in self.class_weight.items()}
        return tuple(
            tuple(0.0 if true == said else costs.get(true, {}).get(said, 1.0) for said in names)
            for true in (names if costs else ())
        )

    @model_validator(mode="after")
    def _decides(self) -> Target:
        chosen = self.decided_by
        if chosen and self.kind == "regress":
            raise ValueError(f"{chosen[0]} is for classes, not for kind = 'regress'")
        if len(chosen) > 1:
            raise ValueError(f"{' and '.join(chosen)}: expected one of them at most")
        told: Any = getattr(self, chosen[0]) if chosen else None
        if not told or told == "balanced":
            return self
        named = [
            *told,
            *(said for each in told.values() if isinstance(each, dict) for said in each),
        ]
        unknown = [name for name in named if name not in self.classes]
        if unknown:
            raise ValueError(
                f"{chosen[0]}: {unknown[0]!r} is not among classes = {[*self.classes]}"
            )
        if any(isinstance(each, dict) and true in each for true, each in told.items()):
            raise ValueError("costs: of a class where it is true, expected none: it is right")
        if self.threshold and self.room != 2:
            raise ValueError(f"threshold: of {self.room} classes, expected two; see class_weight")
        if self.room > MOST_NAMED:
            raise ValueError(f"{chosen[0]}: of {self.room} classes, expected {MOST_NAMED} at most")
        return self

    @model_validator(mode="after")
    def _reads_numbers(self) -> Target:
        reading = [key for key in READING if getattr(self, key)]
        if reading and self.kind == "classify":
            raise ValueError(f"{reading[0]} is for numbers, not for kind = 'classify'")
        if self.unit and not self.decimal:
            raise ValueError("unit is of texts: expected decimal, the mark of their numbers")
        return self

    @model_validator(mode="after")
    def _classes(self) -> Target:
        if self.kind == "regress":
            if self.classes or self.max_classes:
                raise ValueError("regress takes no classes")
        elif len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: each once")
        elif self.room < max(2, len(self.classes)):
            raise ValueError(
                f"room for {self.room} of {len(self.classes)} classes: expected for all of them, "
                "and for two at least"
            )
        return self


class Schedule(Part):
    """How the learning rates change with the optimizer's steps."""

    kind: Literal["constant", "linear", "cosine", "exponential"] = Field(
        "constant", description="Shape; exponential halves the rate every `steps` steps."
    )
    steps: int = Field(100_000, ge=1, description="Optimizer steps to the end, or per halving.")
    end: float = Field(0.1, gt=0, le=1, description="Final fraction of the rate.")
    warmup: int = Field(0, ge=0, description="Steps of linear warm-up.")


class Model(Part):
    """How it is learned."""

    network: Network | None = Field(
        None,
        description="Architecture of the networks; default: mlp, with an image cnn2d. Others come "
        "from installed packages (entry points of the group headrace.networks), or are a Keras "
        "model: keras:PATH, relative to the task file.",
    )
    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (32, 32), description="Widths of the hidden layers."
    )
    activation: Activation = Field("relu", description="Activation function of the hidden layers.")
    chunk: int = Field(
        1,
        ge=1,
        le=4096,
        description="Events per optimizer step of hidden layers and embeddings; 1 = exact "
        "per-event learning. All other parts learn from each event.",
    )
    loss: Loss | None = Field(
        None, description="Default: cross_entropy for classify, huber for regress."
    )
    learning_rate: Rate | Annotated[tuple[Rate, ...], Field(min_length=1, max_length=16)] = Field(
        (0.001, 0.005), description="Learning rate; several make a pool with a network for each."
    )
    optimizer: OptimizerName = Field(
        "adam", description="Optimizer of the networks, by optax's name."
    )
    neighbours: int = Field(
        1000,
        ge=0,
        le=100_000,
        description="Window of the nearest-neighbour members, in rows; 0 = none.",
    )
    members: tuple[PluginName, ...] = Field(
        (),
        max_length=16,
        description="Further members of the pool, by the names that installed packages give them "
        "(entry points of the group headrace.members).",
    )
    beta1: float = Field(
        0.0, ge=0, lt=1, description="First-moment decay of Adam and its variants (momentum)."
    )
    beta2: float = Field(
        0.999, ge=0, lt=1, description="Second-moment decay of Adam and its variants."
    )
    clip: float = Field(0.0, ge=0, description="Gradient clipping by norm; 0 = none.")
    schedule: Schedule = Field(Schedule(), description="Learning rate schedule.")
    embedding: int = Field(8, ge=1, le=256, description="Dimensions of the embeddings.")
    table_bits: int = Field(16, ge=4, le=26, description="log2 of the rows of the embedding table.")
    coverage: float = Field(
        0.9, gt=0, lt=1, description="Nominal coverage of the prediction interval."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the initial weights.")


class Drift(Part):
    """When to say that the world has changed."""

    detectors: tuple[Watcher, ...] = Field(
        ("adwin",),
        description="Drift detectors on the error of every labelled event. Others come from "
        "installed packages (entry points of the group headrace.detectors).",
    )
    adwin_delta: float = Field(0.002, gt=0, lt=1, description="ADWIN's confidence.")
    page_hinkley_threshold: float = Field(50.0, gt=0, description="Page-Hinkley's threshold.")
    ladder: tuple[Rung, ...] = Field(RUNGS, description="Responses to drift; [] = none.")
