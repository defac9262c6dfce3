"""The tables of a task file that say what is remembered of entities, and kept in topics."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from headrace.stream.task.features import Part


class Lags(Part):
    """What is remembered of each entity."""

    labels: int = Field(1, ge=0, le=1000, description="Lagged labels used as inputs.")
    rows: int = Field(0, ge=0, le=1000, description="Lagged rows whose numbers are inputs.")
    traces: tuple[Annotated[float, Field(ge=1, le=1e6)], ...] = Field(
        (8.0, 64.0),
        description="Spans, in events, of moving averages; a row's distances from them are inputs.",
        max_length=16,
    )
    entities: int = Field(
        1024,
        ge=1,
        le=10_000_000,
        description="Entities remembered; the least recently seen are evicted.",
    )


class Topics(Part):
    """How the task's topics are made."""

    partitions: int = Field(
        1,
        ge=1,
        le=10_000,
        description="Partitions of the raw topic, if it is created; outputs have as many.",
    )
    retention_hours: int = Field(
        168,
        ge=1,
        le=10_000_000,
        description="Retention of events and outputs that are created, in hours.",
    )
