"""Labels that come after their events, in a topic of their own: the table `[labels]`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Strict, Tag

from headrace.stream.task.part import FieldPath, Mistake, Part, Real, Whole, once
from headrace.stream.task.schema import TOPIC
from headrace.stream.task.target import Target, class_of, wrong_label

Policy = Literal["ignore", "rescore", "relearn"]


def _sort(value: Any) -> str:
    if isinstance(value, bool):
        return "[truth]"
    return "[number]" if isinstance(value, int | float) else "[name]"


GivenLabel = Annotated[
    Annotated[Real, Tag("[number]")]
    | Annotated[str, Field(min_length=1), Tag("[name]")]
    | Annotated[bool, Strict(), Tag("[truth]")],
    Discriminator(_sort),
]


class Labels(Part):
    """Where labels come from that are known later than their events, and how long is waited."""

    topic: str = Field(pattern=TOPIC, description="The topic of labels.")
    id: FieldPath = Field("id", description="The field with the id of the event it belongs to.")
    label: FieldPath = Field("label", description="The field with the label.")
    time: FieldPath | None = Field(
        None,
        description="The field with the time at which the label was known; default: the Kafka "
        "record's timestamp.",
    )
    weight: FieldPath | None = Field(
        None,
        description="The field with the sample weight of the label, 0 (not learned) to 1000; null "
        "or absent = 1. Metrics are not weighted.",
    )
    propensity: FieldPath | None = Field(
        None,
        description="The field with the chance that there was of this label becoming known, above "
        "0 to 1; null or absent = 1. It teaches by its inverse, 20 times at most.",
    )
    source: FieldPath | None = Field(
        None, description="The field that says who or what gave the label, such as a reviewer."
    )
    exclude: tuple[str, ...] = Field(
        (), max_length=10_000, description="Sources whose labels are refused."
    )
    max_pending: Whole = Field(
        100_000,
        ge=1,
        le=100_000_000,
        description="Predicted events that wait for their label at a time; of more, the oldest "
        "expires.",
    )
    in_memory: Whole = Field(
        100_000,
        ge=2,
        le=100_000_000,
        description="Of these, how many are kept in memory with all that is learned from: the "
        "newest. Those of older ones that wait are in temporary files, and change no result.",
    )
    ttl_hours: Real | None = Field(
        None,
        gt=0,
        le=1e6,
        description="Hours of event time after which an event without a label expires; default: "
        "when there is no more room.",
    )
    policy: Policy = Field(
        "ignore",
        description="Another label for an event that has one: refuse it, score the event again "
        "with it, or score and learn it again.",
    )
    on_expiry: GivenLabel | None = Field(
        None,
        description="The label of an event that expires without one, such as 'no click'; default: "
        "nothing is learned of it.",
    )
    sample_negatives: Real | None = Field(
        None,
        ge=1e-4,
        lt=1,
        description="Share of the events with the label on_expiry that are learned, by their ids; "
        "published probabilities are corrected for it. Default: all.",
    )
    holdout: Real = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Share of events that are marked as held out in their predictions, by their "
        "ids: what is done should not depend on these predictions. They are scored apart, too.",
    )

    def mistakes(self) -> Iterator[Mistake]:
        """Yield what is wrong about sources and samples."""
        if self.exclude and not self.source:
            yield Mistake(
                "exclude", "exclude names sources: expected source, the field that holds them"
            )
        yield from once("exclude", self.exclude)
        if self.sample_negatives is not None and self.on_expiry is None:
            yield Mistake(
                "sample_negatives", "a sample of negatives: expected on_expiry, which names them"
            )

    def misfits(self, target: Target) -> Iterator[Mistake]:
        """Yield what does not go with a target."""
        implied, share = self.on_expiry, self.sample_negatives
        if self.max_pending <= target.horizon:
            yield Mistake(
                "max_pending",
                f"a label answers the event {target.horizon} before its own: expected more than "
                "target.horizon",
            )
        if implied is None:
            return
        if told := wrong_label(target, implied):
            yield Mistake("on_expiry", told)
        elif share is not None and target.kind == "regress":
            yield Mistake(
                "sample_negatives", "a sample of a class: expected target.kind = 'classify'"
            )
        elif share is not None and target.class_weight == "balanced":
            yield Mistake(
                "sample_negatives",
                "target.class_weight = 'balanced' evens classes out, too: expected one of both",
            )
        elif share is not None and class_of(target, implied) is None:
            yield Mistake(
                "sample_negatives",
                "on_expiry is no class from the start: expected it in target.classes",
            )

    def as_spec(self, target: Target) -> dict[str, Any]:
        """Return what labels that come by themselves make of a spec, by its fields."""
        slots = min(self.max_pending, self.in_memory)
        sampled = self._sampled(target)
        return {"waiting": slots, "loads": slots < self.max_pending, "sampled": sampled}

    def _sampled(self, target: Target) -> tuple[int, float] | None:
        """Return the class of which a sample is learned, and the share of it; None: all are."""
        implied, share = self.on_expiry, self.sample_negatives
        at = None if implied is None else class_of(target, implied)
        return None if share is None or at is None else (at, share)

    @property
    def weighted(self) -> bool:
        """Return whether labels say how much they teach."""
        told = self.weight or self.propensity or self.sample_negatives
        return bool(told or self.policy == "rescore")
