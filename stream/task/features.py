"""The kinds of features that a task may have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from headrace.model.spec import Statistic

WHERE = "The field with the value; default: the feature's name."
PLUGIN = r"^[a-z][a-z0-9_-]{0,63}$"  # what parts from other packages are called
LONGEST_NAME = 200  # characters of a feature's name
MOST_BYTES = 16_384  # of an image: thousands of them wait in a micro-batch

ABSOLUTE = (
    "expected an absolute path, of each machine that learns: nothing but the task is read from "
    "where a URL names it"
)


def beside(path: Path, info: ValidationInfo) -> Path:
    """Return where a file lies that a task names, from the folder of the task's own.

    Raises:
        ValueError: a relative path stands in a task that a URL named.
    """
    folder: Path | None = (info.context or {}).get("folder", Path())
    if folder is None and not path.is_absolute():
        raise ValueError(ABSOLUTE)
    return (folder or Path()) / path


FieldPath = Annotated[
    str,
    Field(
        min_length=1,
        description="A top-level key of the event, or a JSON Pointer when it begins with '/'.",
    ),
]


PluginName = Annotated[str, Field(pattern=PLUGIN)]


class Part(BaseModel):
    """Refuse unknown keys and later changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Missing = Annotated[
    tuple[float | Annotated[str, Field(max_length=100)], ...],
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

    @model_validator(mode="after")
    def _readable(self) -> Quantity:
        if self.thousands and not self.decimal:
            raise ValueError("thousands needs decimal, the other mark: expected both")
        if self.decimal and self.thousands == self.decimal:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}: expected two marks")
        if self.duration and (self.decimal or self.unit):
            raise ValueError("duration takes no decimal and no unit: it is in seconds")
        return self


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
    min: float | None = Field(None, description="Smaller values count as missing.")
    max: float | None = Field(None, description="Larger values count as missing.")
    missing: Missing = ()
    decimal: Decimal = None
    thousands: Thousands = None
    duration: Duration = False

    @model_validator(mode="after")
    def _consistent(self) -> Number:
        if (self.unit is None) > (self.to is None) or (
            self.unit is not None and self.to is None and self.decimal is None
        ):
            raise ValueError("unit and to go together; unit alone is for texts: see decimal")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min must be below max, not {self.min} and {self.max}")
        return self


def _ordered(value: tuple[int, int]) -> tuple[int, int]:
    if not 1 <= value[0] <= value[1] <= 10:
        raise ValueError("expected two lengths from 1 to 10, shortest first")
    return value


Lengths = Annotated[tuple[int, int], AfterValidator(_ordered)]


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
    max_tokens: int = Field(
        32, ge=1, le=4096, description="Values of a list and n-grams kept; values come first."
    )

    @property
    def tokens(self) -> int:
        """Count the token slots of a row that it takes."""
        return self.max_tokens if self.several or self.ngrams else 0

    @model_validator(mode="after")
    def _needs_tokens(self) -> Category:
        if "max_tokens" in self.model_fields_set and not self.tokens:
            raise ValueError("max_tokens bounds lists and n-grams: expected several or ngrams")
        if self.boolean and self.tokens:
            raise ValueError("boolean is for one value: expected neither several nor ngrams")
        return self


class Frozen(Part):
    """A feature that a frozen encoder may make numbers of, which are learned as they are."""

    kind: Literal["text", "image"]
    field: FieldPath | None = Field(None, description=WHERE)
    encoder: Path | None = Field(
        None,
        description="A frozen encoder: an ONNX file, or a folder with a model.onnx; of a text with "
        "the tokenizer.json beside it. Relative to the task file.",
    )
    dimensions: int = Field(
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

    @model_validator(mode="after")
    def _needs_encoder(self) -> Frozen:
        if "dimensions" in self.model_fields_set and not self.encoder:
            raise ValueError("dimensions are of an encoder: expected one")
        return self

    @property
    def numbers(self) -> int:
        """Count the numbers that its encoder makes, if it has one."""
        return self.dimensions if self.encoder else 0


class Text(Frozen):
    """A text feature: hashed words and character n-grams; with an encoder its numbers, too."""

    kind: Literal["text"]
    ngrams: Lengths = Field((3, 5), description="Shortest and longest character n-gram.")
    max_tokens: int = Field(256, ge=1, le=4096, description="Tokens kept; words come first.")


class Image(Frozen):
    """An image feature: its pixels, row by row from the top, a byte for each channel; in base64.

    With an encoder its numbers instead.
    """

    kind: Literal["image"]
    height: int = Field(ge=1, description="Rows of pixels.")
    width: int = Field(ge=1, description="Pixels of a row.")
    channels: int = Field(1, ge=1, description="Bytes per pixel: 1 for grey, 3 for colours.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return height, width and channels."""
        return self.height, self.width, self.channels

    @property
    def size(self) -> int:
        """Count the bytes of an image."""
        return self.height * self.width * self.channels

    @model_validator(mode="after")
    def _small(self) -> Image:
        if self.size > MOST_BYTES and not self.encoder:
            raise ValueError(
                f"height x width x channels = {self.size}: expected {MOST_BYTES} bytes at most, or "
                "an encoder"
            )
        return self


class Encoded(Part):
    """A feature of numbers that an encoder makes of a field, whatever is in it."""

    kind: Literal["encoded"]
    field: FieldPath | None = Field(None, description=WHERE)
    encoder: PluginName = Field(
        description="The encoder, by the name that an installed package gives it (entry points of "
        "the group headrace.encoders)."
    )
    width: int = Field(ge=1, le=4096, description="Numbers that it makes of a value.")

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
    seconds: float | None = Field(
        None, ge=1, le=3_153_600_000, description="Window in event time, exact to a sixteenth."
    )

    @model_validator(mode="after")
    def _complete(self) -> Aggregate:
        for key, needed in (
            ("of", self.statistic not in ("count", "since_last")),
            ("seconds", self.statistic != "since_last"),
        ):
            if needed != (getattr(self, key) is not None):
                raise ValueError(f"{self.statistic} {'needs' if needed else 'takes no'} {key}")
        return self


Feature = Annotated[
    Number | Category | Text | Image | Encoded | Aggregate, Field(discriminator="kind")
]
