"""What a task predicts: the table `[target]`, with what misses cost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from headrace.stream.errors import did_you_mean
from headrace.stream.task.part import FieldPath, Mistake, Real, Whole, once
from headrace.stream.task.quantity import (
    READING,
    Decimal,
    Duration,
    Missing,
    Quantity,
    Thousands,
)

MOST_CLASSES = 1000
LONGEST_CLASS = 255  # bytes of a class's name in UTF-8, where it is taken up in mid-stream
LARGEST_LABEL = 1e300  # so that differences are finite, as of numbers in events
DECISIONS = ("class_weight", "threshold", "costs")  # keys of which one may be given
MOST_NAMED = 100  # classes of which each has scores of its own in a report
ROOM = 16  # classes, where none is named
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?", re.ASCII).fullmatch
Share = Annotated[Real, Field(gt=0, lt=1)]
Cost = Annotated[Real, Field(ge=0, le=1e6)]

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
    max_classes: Whole | None = Field(
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
    horizon: Whole = Field(
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

    def mistakes(self) -> Iterator[Mistake]:
        """Yield what is wrong about how it is read, about classes, and what misses cost."""
        yield from super().mistakes()
        for key in READING if self.kind == "classify" else ():
            if getattr(self, key):
                yield Mistake(key, f"{key} is of numbers: expected kind = 'regress'")
        if self.kind == "regress":
            if self.unit and not (self.decimal or self.duration):
                yield Mistake("unit", "it stands beside numbers that are texts: expected decimal")
            for key in ("classes", "max_classes"):
                if getattr(self, key):
                    yield Mistake(key, "regress takes no classes: expected kind = 'classify'")
        elif self.room < max(2, len(self.classes)):
            yield Mistake(
                "max_classes" if self.max_classes else "classes",
                f"room for {self.room} of {len(self.classes)} classes: expected for all of them, "
                "and for two at least",
            )
        yield from once("classes", self.classes)
        yield from _numbers_once(self.classes)
        yield from self._undecidable()

    def _undecidable(self) -> Iterator[Mistake]:
        chosen = self.decided_by
        if chosen and self.kind == "regress":
            yield Mistake(chosen[0], f"{chosen[0]} is for classes, not for kind = 'regress'")
            return
        if len(chosen) > 1:
            yield Mistake(chosen[1], f"{' and '.join(chosen)}: expected one of them at most")
        for key in chosen:
            told: Any = getattr(self, key)
            if not told or told == "balanced":
                continue
            named = [
                *told,
                *(said for each in told.values() if isinstance(each, dict) for said in each),
            ]
            for name in dict.fromkeys(name for name in named if name not in self.classes):
                near = did_you_mean(name, self.classes)
                yield Mistake(
                    key, f"{key}: {name!r} is not among classes = {[*self.classes]}{near}"
                )
            if any(isinstance(each, dict) and true in each for true, each in told.items()):
                yield Mistake(key, "costs: of a class where it is true, expected none: it is right")
            if key == "threshold" and self.room != 2:
                yield Mistake(
                    key, f"threshold: of {self.room} classes, expected two; see class_weight"
                )
            if self.room > MOST_NAMED:
                yield Mistake(key, f"{key}: of {self.room} classes, expected {MOST_NAMED} at most")


def class_of(target: Target, label: str | float | bool) -> int | None:
    """Return the index of the class that a label in a task file names; None if it names none."""
    name = str(label).lower() if isinstance(label, bool) else str(label)
    number = isinstance(label, int | float) and not isinstance(label, bool)
    names = {name, name.removesuffix(".0") if number else name}
    return next((at for at, each in enumerate(target.classes) if each in names), None)


def wrong_label(target: Target, label: str | float | bool) -> str | None:
    """Say what is wrong with a label that a task file gives, if anything."""
    number = isinstance(label, int | float) and not isinstance(label, bool)
    if target.kind == "regress":
        fits = number and abs(label) <= LARGEST_LABEL  # type: ignore[arg-type]
        told = f"expected a number, |x| <= {LARGEST_LABEL:g}, as target.kind = 'regress' has"
        return None if fits else told
    if class_of(target, label) is not None:
        return None
    name = str(label).lower() if isinstance(label, bool) else str(label)
    if target.room == len(target.classes):
        near = did_you_mean(name, target.classes)
        return f"expected one of target.classes = {[*target.classes]}{near}"
    long = len(name.encode()) > LONGEST_CLASS
    return f"expected {LONGEST_CLASS} bytes at most, as a class's name has" if long else None


def _numbers_once(classes: Sequence[str]) -> Iterator[Mistake]:
    """Yield classes that a label could not tell apart, or that no stream has together."""
    spelt: dict[float, str] = {}
    for name in classes:
        if not _NUMBER(name):
            continue
        other = spelt.setdefault(float(name), name)
        if other != name:
            yield Mistake("classes", f"{other!r} and {name!r} are one number: expected one of them")
    truths = [name for name in classes if name in ("true", "false")]
    if truths and spelt:
        number = next(iter(spelt.values()))
        yield Mistake(
            "classes",
            f"{truths[0]!r} is a truth value and {number!r} a number: expected classes of one sort",
        )
