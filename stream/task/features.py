"""The kinds of features that a task may have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from headrace.model.spec import Statistic
from headrace.stream.task.part import FieldPath, Mistake, Part, PluginName, Real, Whole, beside
from headrace.stream.task.quantity import Decimal, Duration, Missing, Quantity, Thousands

WHERE = "The field with the value; default: the feature's name."
LONGEST_NAME = 200  # characters of a feature's name
MOST_BYTES = 16_384  # of an image: thousands of them wait in a micro-batch


class Number(Quantity):
    """A numeric feature."""

    kind: Literal["number"]
    field: FieldPath | None = Field(None, description=WHERE)
    unit: str | None = Field(
        None,
        description="The unit in the events, such as degF; with decimal it may stand beside the "
        "number in a text, such as 12 kWh, $5 or 3 %.",
    )
    to: str | None = Field(None, description="The unit to learn in, such as degC.")
    min: Real | None = Field(None, description="Smaller values count as missing.")
    max: Real | None = Field(None, description="Larger values count as missing.")
    missing: Missing = ()
    decimal: Decimal = None
    thousands: Thousands = None
    duration: Duration = False

    def mistakes(self) -> Iterator[Mistake]:
        """Yield what is wrong about its unit, its range, and how it is read."""
        yield from super().mistakes()
        if self.to is not None and self.unit is None:
            yield Mistake("to", "unit and to go together: expected unit, too")
        if self.unit is not None and self.to is None and self.decimal is None:
            yield Mistake(
                "unit",
                "unit and to go together: expected to, too; or decimal, where it stands beside "
                "numbers that are texts",
            )
        if self.min is not None and self.max is not None and self.min >= self.max:
            yield Mistake("min", f"min must be below max, not {self.min:g} and {self.max:g}")


def _ordered(value: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= value[0] <= value[1] <= 10:
        raise ValueError("expected two lengths from 1 to 10, shortest first")
    return value


Lengths = Annotated[tuple[Whole, Whole], AfterValidator(_ordered)]


class Category(Part):
    """A categorical feature: each value is a hashed id, so an unseen one needs no declaration."""

    kind: Literal["category"]
    field: FieldPath | None = Field(None, description=WHERE)
    several: bool = Field(
        False,
        strict=True,
        description="The field may be a list of values; their order is ignored.",
    )
    boolean: bool = Field(
        False,
        strict=True,
        description="yes/no, t/f, y/n, on/off, 1/0 and true/false are the same two values, in any "
        "case; other texts stay what they are.",
    )
    ngrams: Lengths | None = Field(
        None,
        description="Shortest and longest character n-gram, so that similarly spelt values are "
        "similar; default: none.",
    )
    max_tokens: Whole = Field(
        32, ge=1, le=4096, description="Values of a list and n-grams kept; values come first."
    )

    @property
    def tokens(self) -> int:
        """Count the token slots of a row that it takes."""
        return self.max_tokens if self.several or self.ngrams else 0

    def mistakes(self) -> Iterator[Mistake]:
        """Yield what is wrong about its tokens: that there are none, or that there are."""
        if "max_tokens" in self.model_fields_set and not self.tokens:
            yield Mistake(
                "max_tokens", "it bounds lists and n-grams: expected several or ngrams, too"
            )
        if self.boolean and self.tokens:
            other = "several" if self.several else "ngrams"
            yield Mistake("boolean", f"it is for one value: expected it without {other}")


class Frozen(Part):
    """A feature that a frozen encoder may make numbers of, which are learned as they are."""

    kind: Literal["text", "image"]
    field: FieldPath | None = Field(None, description=WHERE)
    encoder: Path | None = Field(
        None,
        description="A frozen encoder: an ONNX file, or a folder with a model.onnx; of a text with "
        "the tokenizer.json beside it. Relative to the task file.",
    )
    dimensions: Whole = Field(
        128,
        ge=1,
        le=4096,
        description="Numbers of the encoder's vector that are learned: the first so many.",
    )

    @field_validator("encoder")
    @classmethod
    def _beside_the_task_file(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if "\0" in str(value):
            raise ValueError("expected the path of a file or folder")
        return value and beside(value, info)

    def mistakes(self) -> Iterator[Mistake]:
        """Yield what is wrong where there is no encoder."""
        if "dimensions" in self.model_fields_set and not self.encoder:
            yield Mistake("dimensions", "dimensions are of an encoder: expected one")

    @property
    def numbers(self) -> int:
        """Count the numbers that its encoder makes, if it has one."""
        return self.dimensions if self.encoder else 0


class Text(Frozen):
    """A text feature: hashed words and character n-grams; with an encoder its numbers, too."""

    kind: Literal["text"]
    ngrams: Lengths = Field((3, 5), description="Shortest and longest character n-gram.")
    max_tokens: Whole = Field(256, ge=1, le=4096, description="Tokens kept; words come first.")


class Image(Frozen):
    """An image feature: its pixels, row by row from the top, a byte for each channel; in base64.

    With an encoder its numbers instead.
    """

    kind: Literal["image"]
    height: Whole = Field(ge=1, description="Rows of pixels.")
    width: Whole = Field(ge=1, description="Pixels of a row.")
    channels: Whole = Field(1, ge=1, description="Bytes per pixel: 1 for grey, 3 for colours.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return height, width and channels."""
        return self.height, self.width, self.channels

    @property
    def size(self) -> int:
        """Count the bytes of an image."""
        return self.height * self.width * self.channels

    def mistakes(self) -> Iterator[Mistake]:
        """Yield what is wrong about its size."""
        yield from super().mistakes()
        if self.size > MOST_BYTES and not self.encoder:
            yield Mistake(
                "",
                f"height x width x channels = {self.size}: expected {MOST_BYTES} bytes at most, or "
                "an encoder",
            )


class Encoded(Part):
    """A feature of numbers that an encoder makes of a field, whatever is in it."""

    kind: Literal["encoded"]
    field: FieldPath | None = Field(None, description=WHERE)
    encoder: PluginName = Field(
        description="The encoder, by the name that an installed package gives it (entry points of "
        "the group headrace.encoders)."
    )
    width: Whole = Field(ge=1, le=4096, description="Numbers that it makes of a value.")

    @property
    def numbers(self) -> int:
        """Count the numbers that its encoder makes."""
        return self.width


class Aggregate(Part):
    """What is made of the entity's events within a time, this one included."""

    kind: Literal["aggregate"]
    statistic: Statistic = Field(
        description="Statistic; since_last: seconds since the entity's previous event."
    )
    of: str | None = Field(
        None,
        min_length=1,
        description="The number feature to aggregate; for distinct, the category.",
    )
    seconds: Real | None = Field(
        None, ge=1, le=3_153_600_000, description="Window in event time, exact to a sixteenth."
    )

    def mistakes(self) -> Iterator[Mistake]:
        """Yield the keys that its statistic lacks, or does not take."""
        for key, needed in (
            ("of", self.statistic not in ("count", "since_last")),
            ("seconds", self.statistic != "since_last"),
        ):
            if needed and getattr(self, key) is None:
                yield Mistake("", f"{self.statistic} needs {key}")
            if not needed and getattr(self, key) is not None:
                yield Mistake(key, f"{self.statistic} takes no {key}")


Feature = Annotated[
    Number | Category | Text | Image | Encoded | Aggregate, Field(discriminator="kind")
]
