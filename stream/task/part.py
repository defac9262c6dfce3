"""What the tables of a task file are made of: parts that find their mistakes, and strict values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationInfo, model_validator

PLUGIN = r"^[a-z][a-z0-9_-]{0,63}$"  # what parts from other packages are called
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


Whole = Annotated[int, Strict()]  # `true` and "1" are none
Real = Annotated[float, Strict()]


class Mistake(NamedTuple):
    """Say what is wrong with a key of a part, in the light of the others."""

    key: str | tuple[str | int, ...]  # or the path to one; "" is the part itself
    told: str


class MistakesError(ValueError):
    """Hold every mistake of a part whose keys are right, each by itself."""

    def __init__(self, found: list[Mistake]) -> None:
        super().__init__("; ".join(f"{key}: {told}" for key, told in found))
        self.found = found


class Part(BaseModel):
    """Refuse unknown keys, later changes, and keys that do not go with each other."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def mistakes(self) -> Iterator[Mistake]:
        """Yield what is wrong about keys that are right, each by itself."""
        yield from ()

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if found := [*self.mistakes()]:
            raise MistakesError(found)
        return self


def doubled(values: Iterable[Any]) -> Any:
    """Return the first value that stands there twice, or None."""
    seen: list[Any] = []
    for value in values:
        if value in seen:
            return value
        seen.append(value)
    return None


def once(key: str, values: Iterable[Any]) -> Iterator[Mistake]:
    """Yield the mistake that a value stands in a list twice."""
    if (value := doubled(values)) is not None:
        shown = f"{value:g}" if isinstance(value, float) else repr(value)
        yield Mistake(key, f"{shown} stands there twice: expected each once")
