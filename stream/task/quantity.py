"""How numbers are read that are texts: the keys that numeric features and targets share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Discriminator, Field, Tag

from headrace.stream.task.part import Mistake, Part, Real

Missing = Annotated[
    tuple[
        Annotated[
            Annotated[Real, Tag("[number]")] | Annotated[str, Field(max_length=100), Tag("[name]")],
            Discriminator(lambda value: "[name]" if isinstance(value, str) else "[number]"),
        ],
        ...,
    ],
    Field(
        description='Values that count as missing, such as -999; also texts, such as "ERR".',
        max_length=1000,
    ),
]
Decimal = Annotated[
    Literal[".", ","] | None,
    Field(description="The decimal mark of numbers that are texts; default: a text is no number."),
]
Thousands = Annotated[
    Literal[",", ".", " ", "'", "_"] | None,
    Field(description="The mark between thousands, where numbers that are texts may have one."),
]
Duration = Annotated[
    bool,
    Field(
        strict=True,
        description="Texts are durations, such as 1:30:00, PT1H30M or 1h30m, and are read in "
        "seconds.",
    ),
]
READING = ("unit", "missing", "decimal", "thousands", "duration")


class Quantity(Part):
    """How a number is read where it is a text: what numeric features and targets share.

    Each has these keys itself, in the order of its own.
    """

    if TYPE_CHECKING:
        unit: str | None
        missing: Missing
        decimal: Decimal
        thousands: Thousands
        duration: Duration

    @property
    def reads_texts(self) -> bool:
        """Return whether a text may be a number, or say that there is none."""
        codes = any(isinstance(code, str) for code in self.missing)
        return self.decimal is not None or self.duration or codes

    def mistakes(self) -> Iterator[Mistake]:
        """Yield what is wrong about how texts are read."""
        if self.thousands and not self.decimal:
            yield Mistake("thousands", "it goes with the other mark: expected decimal, too")
        if self.decimal and self.thousands == self.decimal:
            yield Mistake("thousands", "it is the decimal mark: expected another one")
        if self.duration:
            for key in ("decimal", "unit"):
                if getattr(self, key):
                    yield Mistake(key, f"a duration is read in seconds: expected no {key}")
