"""Wire types and codecs: what stands in each topic, and strict decoding of what strangers send."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, NamedTuple

import msgspec

from headrace.model.spec import Rival, Step

LETTER_DETAIL = 500  # characters
LETTER_KEY_BYTES, LETTER_RAW_BYTES = 4_096, 65_536  # in base64 a third more
LETTER_BYTES = 102_400  # a letter and its key in Kafka


class Records(NamedTuple):
    """Hold consecutive Kafka records of one topic as columns."""

    topic: str
    values: list[bytes | None]
    keys: list[bytes | None]
    partitions: list[int]
    offsets: list[int]
    timestamps_ms: list[int]  # empty where nobody asked for them


class Reject(NamedTuple):
    """Say why an event is refused."""

    code: str
    detail: str


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hold a refused event: `<task>.dead-letter`, one for each refused event.

    Made by `dead_letter`, which bounds it: of a longer key or value it holds the first bytes, the
    size and the sha256. The whole event stands in the raw topic, where the coordinates say.
    """

    code: str
    detail: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    raw: bytes | None  # also None where a learner refuses what a normaliser had taken
    key_bytes: int | None = None  # the size of one that was cut
    key_sha256: str | None = None
    raw_bytes: int | None = None
    raw_sha256: str | None = None


def dead_letter(
    reject: Reject, topic: str, partition: int, offset: int, key: bytes | None, raw: bytes | None
) -> DeadLetter:
    """Put a refused event into a letter of LETTER_BYTES at most, whatever its size."""
    cut: dict[str, Any] = {}
    for name, data, most in (("key", key, LETTER_KEY_BYTES), ("raw", raw, LETTER_RAW_BYTES)):
        if data is not None and len(data) > most:
            cut |= {f"{name}_bytes": len(data), f"{name}_sha256": sha256(data).hexdigest()}
    return DeadLetter(
        reject.code,
        reject.detail[:LETTER_DETAIL],
        topic,
        partition,
        offset,
        key and key[:LETTER_KEY_BYTES],
        raw and raw[:LETTER_RAW_BYTES],
        **cut,
    )


class Feature(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Hold a normalised event, or the code it was refused with: `<task>.features`.

    There is exactly one for each raw record, so a missing offset always means a lost row.
    `numeric` is float64 (NaN = missing), `ids` and `entity` are unsigned 32-bit, little-endian;
    `image` holds the pixels as they came.
    """

    topic: str
    partition: int
    offset: int
    reject: str | None = None
    id: str | int = ""
    time_ms: int = 0
    label: float = float("nan")
    numeric: bytes = b""
    ids: bytes = b""
    entity: bytes = b""
    image: bytes = b""
    new_class: str | None = None
    weight: float = 1.0
    arrived_ms: int = 0  # Kafka's timestamp of the event, where labels have a topic of their own


class Explanation(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Hold what drove a prediction: `base` and the `inputs`' parts add up to it.

    That is the number predicted, or the probability of the class.
    """

    base: float  # the mean of what would be predicted of a sample of the newest rows
    inputs: dict[str, float]
    of: str | None = None  # the class


class Prediction(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Hold what was said about one event: `<task>.predictions`, keyed as its event was.

    `probabilities` are in the order of the task file's classes, then of their coming.
    """

    id: str | int
    prediction: str | float | None  # null before there is a class
    step: int
    time_ms: int
    partition: int
    offset: int
    probabilities: list[float] | None = None
    interval: list[float] | None = None
    holdout: bool = False  # whether what is done should not depend on it, see labels.holdout
    explanation: Explanation | None = None  # of a sample of events, see model.explain


class Expired(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tell of an event that no label came for in time: `<task>.expired`."""

    id: str | int
    time_ms: int  # event time
    partition: int
    offset: int
    label: str | float | None = None  # what was learned of it, as labels.on_expiry says


class Moved(msgspec.Struct, frozen=True):
    """Say that a column of the newest rows is unlike the first ones since the last alarm."""

    column: str  # of numbers, a part of the calendar, or "prediction"
    psi: float  # population stability index
    ks: float  # Kolmogorov-Smirnov statistic


class DriftAlarm(msgspec.Struct, frozen=True, tag_field="kind", tag="alarm"):
    """Hold an alarm: `<task>.drift`.

    `before` and `after` are means of the error; the `statistic`, of the error at the last `window`
    labelled events, reached the `threshold`. `moved` names the inputs that moved most, if any did.
    """

    detector: str
    id: str | int
    step: int
    time_ms: int
    partition: int
    offset: int
    before: float
    after: float
    statistic: float
    threshold: float
    window: float
    moved: list[Moved] = []


class LadderStep(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="step"):
    """Hold what was done about drift: `<task>.drift`.

    What was decided by comparing says how: `gain` is the mean of the champion's error less the
    rival's over `events` labels, and lies between `low` and `high` with 95 % confidence, however
    often that is looked at. `exchanged` are two classes that have changed places, and `statistic`
    the logarithm of how much likelier that made the last labels. A `member` of the pool that was
    reset had come to numbers that are none, or exploded.
    """

    action: Step
    id: str | int
    step: int
    time_ms: int
    partition: int
    offset: int
    rival: Rival | None = None
    events: int | None = None
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    exchanged: list[str] | None = None
    statistic: float | None = None
    member: str | None = None


DriftRecord = DriftAlarm | LadderStep
