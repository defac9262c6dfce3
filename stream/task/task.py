"""The task file: what to predict, from what, with which model. One frozen pydantic model."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator

from headrace.model.spec import Aggregate as ColumnAggregate
from headrace.model.spec import Schedule as RateSchedule
from headrace.model.spec import Spec
from headrace.stream.errors import TaskError, did_you_mean
from headrace.stream.task.compatibility import misfits
from headrace.stream.task.features import (
    LONGEST_NAME,
    Aggregate,
    Category,
    Encoded,
    Feature,
    Frozen,
    Image,
    Number,
    Text,
)
from headrace.stream.task.files import read
from headrace.stream.task.keras_file import identity
from headrace.stream.task.labels import Labels
from headrace.stream.task.origin import Origin, plain, problems
from headrace.stream.task.part import Mistake, Part, PluginName, beside, doubled, once
from headrace.stream.task.schema import Drift, Input, Lags, Model, Topics
from headrace.stream.task.target import Target
from headrace.stream.task.target_field import given_away

NAME = r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,99}$"
WORDS = 64  # of a text that are read in their order
MOST_ROW_BYTES = 1 << 20  # thousands of them wait in a micro-batch
NOT_OF_CORE = {"network", "learning_rate", "neighbours", "schedule", "explain"}
WINDOW_VALUES = 65_536  # numbers that the neighbours' window may hold

STAGES = frozenset(
    {"features", "predictions", "expired", "dead-letter", "metrics", "drift", "models", "ledger"}
)  # of output topics


class Task(Part):
    """One thing to predict from one stream."""

    name: str = Field(pattern=NAME, description="Prefix of the output topics.")
    input: Input
    target: Target
    features: dict[Annotated[str, Field(max_length=LONGEST_NAME)], Feature] = Field(
        min_length=1, max_length=10_000
    )
    calendar: tuple[Literal["hour", "weekday", "year"], ...] = Field(
        (), description="Cycles of the event time used as inputs: sine and cosine of each."
    )
    cross: tuple[Annotated[tuple[str, ...], Field(min_length=2, max_length=4)], ...] = Field(
        (),
        max_length=1000,
        description="Feature crosses of categories: one hashed id for each combination.",
    )
    hash_key_file: Path | None = Field(
        None,
        description="A file whose bytes key the hash function; default: the task's name. Relative "
        "to the task file.",
    )
    metrics: tuple[PluginName, ...] = Field(
        (),
        max_length=16,
        description="Further metrics, by the names that installed packages give them (entry "
        "points of the group headrace.metrics).",
    )
    labels: Labels | None = None
    lags: Lags = Lags()
    model: Model = Model()
    drift: Drift = Drift()
    topics: Topics = Topics()
    _origin: Origin = PrivateAttr(Origin())
    _waiting: int = PrivateAttr(0)

    @field_validator("hash_key_file")
    @classmethod
    def _beside_the_task_file(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if "\0" in str(value):
            raise ValueError("expected the path of a file")
        return value and beside(value, info)

    def mistakes(self) -> Iterator[Mistake]:
        """Yield what is wrong about tables that are right, each by itself."""
        yield from (
            found := [
                *given_away(self.input, self.target, self.features),
                *self._crosses(),
                *self._aggregates(),
                *self._pictures(),
                *self._late_labels(),
                *once("calendar", self.calendar),
                *once("metrics", self.metrics),
            ]
        )
        if self.input.topic in map(self.output, STAGES):
            yield Mistake(
                ("input", "topic"),
                "written by this task itself: expected the topic of its events",
            )
        if not found:  # what it takes can be counted
            yield from misfits(self.spec)
            if self.row_bytes > MOST_ROW_BYTES:
                yield Mistake(
                    "features",
                    f"a row takes {self.row_bytes} bytes, expected {MOST_ROW_BYTES} at most: "
                    "name fewer texts and lists, or give them fewer max_tokens",
                )

    def _late_labels(self) -> Iterator[Mistake]:
        if (labels := self.labels) is None:
            return
        if labels.topic in (self.input.topic, *map(self.output, STAGES)):
            yield Mistake(
                ("labels", "topic"), "expected a topic of labels alone, which others write"
            )
        if self.model.chunk > 1:
            yield Mistake(
                ("model", "chunk"), "late labels are learned one by one: expected 1 with [labels]"
            )
        if labels.propensity and self.input.propensity:
            yield Mistake(("labels", "propensity"), "input.propensity tells it, too: expected one")
        for mistake in labels.misfits(self.target):
            yield Mistake(("labels", str(mistake.key)), mistake.told)

    @property
    def _weighted(self) -> bool:
        """Return whether rows, or their labels, say how much they teach."""
        late = self.labels and self.labels.weighted
        return bool(self.input.weight or self.input.propensity or late)

    def _crosses(self) -> Iterator[Mistake]:
        single = self.single
        for place, names in enumerate(self.cross):
            wrong = [name for name in names if name not in single]
            if wrong or len(set(names)) < len(names):
                near = did_you_mean(wrong[0], single) if wrong else ""
                yield Mistake(
                    ("cross", place),
                    "expected different categories of one value each, "
                    f"of {', '.join(sorted(single)) or 'which there is none'}{near}",
                )
        if doubled([frozenset(names) for names in self.cross]):
            yield Mistake("cross", "expected each combination once")

    def _aggregates(self) -> Iterator[Mistake]:
        for name, each in self.of_kind(Aggregate).items():
            kind, known = "number", [*self.of_kind(Number)]
            if each.statistic == "distinct":
                kind, known = "category", self.single
            if each.of is not None and each.of not in known:
                yield Mistake(
                    ("features", name, "of"),
                    f"expected a {kind} among features, of "
                    f"{', '.join(known) or 'which there is none'}{did_you_mean(each.of, known)}",
                )

    def _pictures(self) -> Iterator[Mistake]:
        images = [f"features.{name}" for name in self._images]
        if len(images) > 1:
            yield Mistake(
                "features",
                f"{' and '.join(images)} are images: expected one of them at most, and others with "
                "an encoder",
            )
        for name, image in self.of_kind(Image).items():
            coded = 4 * math.ceil(image.size / 3)
            if coded > self.input.max_bytes:
                yield Mistake(
                    ("features", name),
                    f"features.{name} takes {coded} bytes in base64, "
                    f"input.max_bytes = {self.input.max_bytes}: expected room for it",
                )

    @classmethod
    def load(cls, path: str | Path) -> Task:
        """Read a task file; see `load`."""
        return load(path)

    def of_kind(self, kind: type[Any]) -> dict[str, Any]:
        """Return the features of one kind by name, in the order of the file."""
        return {name: f for name, f in self.features.items() if isinstance(f, kind)}

    def with_network(self, name: str) -> Task:
        """Return the same task with another `model.network`."""
        return self.model_copy(
            update={"model": self.model.model_copy(update={"network": name})},
        )

    def with_late_labels(self, waiting: int) -> Task:
        """Return the same task, but that labels come by themselves: so many rows wait for one."""
        late = self.model_copy()
        late._waiting = waiting
        return late

    @property
    def single(self) -> list[str]:
        """Name the categories of one value each, in the order of the file."""
        return [name for name, each in self.of_kind(Category).items() if not each.several]

    @property
    def columns(self) -> list[str]:
        """Name the numeric columns of a row, in their order."""
        cycles = [f"{part}, {wave}" for part in self.calendar for wave in ("sine", "cosine")]
        encoded = [
            f"{name}, {at}"
            for name, each in self.encoded.items()
            for at in range(1, each.numbers + 1)
        ]
        return [*self.of_kind(Number), *encoded, *cycles, *self.of_kind(Aggregate)]

    @property
    def frozen(self) -> dict[str, Frozen]:
        """Return the texts and images with a frozen encoder by name, in the order of the file."""
        return {name: each for name, each in self.of_kind(Frozen).items() if each.encoder}

    @property
    def _frozen_columns(self) -> tuple[int, int]:
        """Return the place of the first column of `frozen`, and how many there are."""
        first = sum(each.numbers for each in self.of_kind(Encoded).values())
        count = sum(each.numbers for each in self.frozen.values())
        return (len(self.of_kind(Number)) + first, count) if count else (0, 0)

    @property
    def encoded(self) -> dict[str, Encoded | Frozen]:
        """Return the features that an encoder makes numbers of, by name: in order of columns."""
        return self.of_kind(Encoded) | self.frozen

    @property
    def _images(self) -> dict[str, Image]:
        """Return the images whose pixels are learned."""
        return {name: each for name, each in self.of_kind(Image).items() if not each.encoder}

    @property
    def image(self) -> tuple[int, int, int]:
        """Return height, width and channels of the image; zeros where there is none.

        What an encoder makes numbers of counts for none.
        """
        return next((image.shape for image in self._images.values()), (0, 0, 0))

    @property
    def spec(self) -> Spec:
        """Return what the learner has to be."""
        numeric = len(self.columns)
        pixels = math.prod(self.image)
        network = identity(self.model.network or ("cnn2d" if pixels else "mlp"))
        texts = [text.max_tokens for text in self.of_kind(Text).values()]
        ordered = texts if network == "textcnn" else []
        single, rates = len(self.single), self.model.learning_rate
        return Spec(
            numeric=numeric,
            aggregates=tuple(map(self._aggregate, self.of_kind(Aggregate).values())),
            frozen=self._frozen_columns,
            categories=single,
            crosses=len(self.cross),
            lists=tuple(each.tokens for each in self.of_kind(Category).values() if each.tokens),
            tokens=sum(texts),
            words=tuple(min(most, WORDS) for most in ordered),
            image=self.image,
            classes=self.target.room,
            open_classes=self.target.room - len(self.target.classes),
            costs=self.target.cost_rows,
            balanced=self.target.class_weight == "balanced",
            weighted=self._weighted,
            horizon=0 if self.labels else self.target.horizon,  # then labels find their rows
            **(self.labels.as_spec(self.target) if self.labels else {"waiting": self._waiting}),
            label_lags=self.lags.labels,
            numeric_lags=self.lags.rows,
            entities=self.lags.entities if self.input.entity else 0,
            **self.model.model_dump(exclude=NOT_OF_CORE),
            schedule=RateSchedule(**self.model.schedule.model_dump()),
            network=network,
            **self.drift.model_dump(),
            metrics=self.metrics,
            rates=rates if isinstance(rates, tuple) else (rates,),
            traces=self.lags.traces,
            neighbours=self._neighbours(pixels + numeric + single),
        )

    def _aggregate(self, each: Aggregate) -> ColumnAggregate:
        source = self.single.index(each.of or "") if each.statistic == "distinct" else 0
        return ColumnAggregate(each.statistic, each.seconds or 0.0, source)

    @property
    def row_bytes(self) -> int:
        """Count the bytes of a row's arrays."""
        spec = self.spec
        return 8 * spec.numeric + 4 * spec.ids + 8 + spec.pixels

    def _neighbours(self, columns: int) -> int:
        """Bound the window: wide rows are remembered fewer, so that each costs about the same.

        Quantiles are left to the networks: a vote has none. And so are events that get a label as
        they expire: of the newest ones only the others are labelled, and a vote of these would say
        that the label is never the implied one.
        """
        implied = self.labels is not None and self.labels.on_expiry is not None
        if self.model.loss == "pinball" or implied or not columns:
            return 0
        return min(self.model.neighbours, WINDOW_VALUES // columns)

    def output(self, stage: str) -> str:
        """Name an output topic, such as `<task>.predictions`."""
        return f"{self.name}.{stage}"


def load(path: str | Path) -> Task:
    """Read a task file.

    Args:
        path: of the file, or its URL.

    Raises:
        TaskError: naming the file, the key, the value and what was expected there.
        UsageError: there is no driver for such a URL.
        StoreError: what it names cannot be reached.
    """
    return parse(*read(path))


def parse(text: str, origin: str, folder: Path | None = Path()) -> Task:
    """Read a task from TOML text.

    Args:
        origin: names it in errors, before line and column.
        folder: what paths of files in it are relative to; None: they may not be.
    """
    try:
        return validate(tomllib.loads(text), origin, folder, text)
    except RecursionError:
        raise TaskError(f"{origin}: not TOML of a task: it is nested too deep") from None
    except ValueError as error:  # tomllib's own, and Python's of a number with too many digits
        raise TaskError(*problems().of_toml(error, text, origin)) from error


def validate(
    table: dict[str, Any], origin: str, folder: Path | None = Path(), text: str = ""
) -> Task:
    """Read a task from a table as TOML would give it.

    Args:
        folder: where its file lies.
        text: of the file, where the table is of one: errors say line and column.
    """
    try:
        task = Task.model_validate(plain(table), context={"folder": folder})
        task._origin = Origin(origin, text)
        return task
    except ValidationError as error:
        raise TaskError(*problems().of_task(error, Task, text, origin)) from error
