"""Records of a labels topic: what they say, and what each that is no label is refused as."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from headrace.stream.events import Records
from headrace.stream.rows.classes import NEW_CLASS
from headrace.stream.rows.label_reader import LabelReader
from headrace.stream.rows.late import LateLabel, labels_of
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task, parse
from headrace.stream.task.schema import LONGEST_KEY
from tests.support.events import POISON

NOW_MS = 1_714_564_800_000  # 2024-05-01T12:00:00Z
CLASSES = 'kind = "classify"\nclasses = ["no", "yes"]'


def task(
    target: str = CLASSES, labels: str = "", field: str = "label", **source: str | bool | int
) -> Task:
    more = "\n".join(f"{key} = {json.dumps(value)}" for key, value in source.items())
    return parse(
        f"""
name = "t"
[input]
topic = "t.events"
entity = "entity"
weight = "weight"
exclude = ["nobody"]
max_bytes = 4096
{more}
[features]
x = {{ kind = "number" }}
words = {{ kind = "text", max_tokens = 4 }}
[target]
field = "{field}"
{target}
[labels]
topic = "t.labels"
{labels}
""",
        "t",
    )


def records(*values: bytes | None, stamps_ms: Sequence[int] = ()) -> Records:
    """Make records whose coordinates tell them apart."""
    count = len(values)
    stamps = [*stamps_ms] or [NOW_MS + at for at in range(count)]
    keys: list[bytes | None] = [None if at % 2 else b"k%d" % at for at in range(count)]
    partitions, offsets = [at % 3 for at in range(count)], [100 + 7 * at for at in range(count)]
    return Records("t.labels", [*values], keys, partitions, offsets, stamps)


def label(**changes: object) -> bytes:
    return msgspec.json.encode({"id": "a", "label": "yes"} | changes)


def without(value: bytes, name: str) -> bytes:
    return msgspec.json.encode({k: v for k, v in msgspec.json.decode(value).items() if k != name})


BROKEN: dict[str, tuple[bytes | None, str]] = {
    "tombstone": (None, "tombstone"),
    "zero bytes": (b"", "json"),
    "not JSON": (b"yes", "json"),
    "cut off": (label()[:-3], "json"),
    "two documents": (label() * 2, "json"),
    "not UTF-8": (b'{"id":"a","label":"\xff"}', "encoding"),
    "byte order mark": (b"\xef\xbb\xbf" + label(), "json"),
    "too large": (label(note="x" * 5000), "too_large"),
    "an array": (b'["a","yes"]', "schema"),
    "a text": (b'"yes"', "schema"),
    "null": (b"null", "schema"),
    "no id": (without(label(), "id"), "schema"),
    "null id": (label(id=None), "schema"),
    "an id that is true": (label(id=True), "schema"),
    "an id that is an object": (label(id={}), "schema"),
    "empty id": (label(id=""), "id"),
    "endless id": (label(id="i" * 300), "id"),
    "id beyond 64 bits": (label(id=2**64 - 1).replace(b"18446744073709551615", b"9" * 30), "id"),
    "id with a fraction": (label(id=0.5), "id"),
    "no label": (without(label(), "label"), "label"),
    "null label": (label(label=None), "label"),
    "unknown class": (label(label="maybe"), "label"),
    "a class in another case": (label(label="Yes"), "label"),
    "a class with a space": (label(label="yes "), "label"),
    "a number that is no class": (label(label=1), "label"),
    "a truth value that is no class": (label(label=True), "label"),
    "a list": (label(label=["yes"]), "schema"),
    "an object": (label(label={"yes": 1}), "schema"),
    "NaN": (b'{"id":"a","label":NaN}', "json"),
    "the label twice": (b'{"id":"a","label":"no","label":"yes"}', "duplicate_key"),
    "the id twice": (b'{"id":"a","label":"yes","id":"b"}', "duplicate_key"),
    "twice within what nobody asked for": (
        b'{"id":"a","label":"yes","z":{"a":1,"a":2}}',
        "duplicate_key",
    ),
    "deep": (label()[:-1] + b',"z":' + b"[" * 9 + b"]" * 9 + b"}", "depth"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_label_becomes_a_dead_letter_and_changes_no_other(name: str) -> None:
    broken, code = BROKEN[name]
    found = LabelReader(task()).read(records(label(id="f"), broken, label(id="g")))
    assert [each.id for each in found.labels] == ["f", "g"]
    assert found.arrived_ms == [NOW_MS, NOW_MS + 2]
    (letter,) = found.letters
    assert (letter.code, letter.topic, letter.partition, letter.offset) == (
        code,
        "t.labels",
        1,
        107,
    )
    assert letter.key is None
    assert letter.detail


def test_all_that_is_broken_at_once_is_told_by_coordinates() -> None:
    given = [label(id=1), *(value for value, _ in BROKEN.values()), label(id=2)]
    came = records(*given)
    found = LabelReader(task()).read(came)
    assert [each.id for each in found.labels] == [1, 2]
    told = {(each.partition, each.offset): each for each in found.letters}
    assert [*told] == sorted(told)
    assert len(told) == len(found.letters) == len(BROKEN)
    for at, (_, code) in enumerate(BROKEN.values(), 1):
        letter = told[came.partitions[at], came.offsets[at]]
        assert (letter.code, letter.key) == (code, came.keys[at])


def test_so_is_what_no_event_may_be() -> None:
    """Events are not labels: those that lack nothing else are refused by the same rules."""
    named = {
        name: each for name, each in POISON.items() if each[1] in ("json", "encoding", "depth")
    }
    found = LabelReader(task()).read(records(*(value for value, _ in named.values())))
    assert not found.labels
    codes = {each.offset: each.code for each in found.letters}
    assert [codes[at] for at in sorted(codes)] == [code for _, code in named.values()]


def test_a_key_that_is_too_long_is_refused() -> None:
    came = records(label())._replace(keys=[b"k" * (LONGEST_KEY + 1)])
    (letter,) = LabelReader(task()).read(came).letters
    assert (letter.code, letter.key_bytes) == ("too_large", LONGEST_KEY + 1)


def test_a_label_says_who_where_and_when() -> None:
    came = records(label(id="é"), label(id=2**63 - 1, label="no"), label(id=7.0))
    assert LabelReader(task()).read(came).labels == [
        LateLabel("é", b"k0", 0, 100, NOW_MS, 1.0, None),
        LateLabel(2**63 - 1, None, 1, 107, NOW_MS + 1, 0.0, None),
        LateLabel(7, b"k2", 2, 114, NOW_MS + 2, 1.0, None),
    ]


def test_fields_may_stand_anywhere_and_say_when_it_was_known() -> None:
    where = 'id = "/of/event~1id"\nlabel = "/said/0"\ntime = "known"'
    told = {"of": {"event/id": 3}, "said": {"0": "yes"}, "known": "2024-05-01T12:00:01Z", "id": "x"}
    reader = LabelReader(task(labels=where))
    found = reader.read(records(msgspec.json.encode(told), label(known=NOW_MS / 1000)))
    assert found.labels == [LateLabel(3, b"k0", 0, 100, NOW_MS + 1000, 1.0, None)]
    assert found.arrived_ms == [NOW_MS]
    assert [each.code for each in found.letters] == ["schema"]


@pytest.mark.parametrize("known", ["yesterday", "1066-10-14T09:00:00Z", 1e300])
def test_a_time_that_is_none_is_refused(known: object) -> None:
    reader = LabelReader(task(labels='time = "known"'))
    (letter,) = reader.read(records(label(known=known))).letters
    assert letter.code == "time"


def test_the_fields_of_events_are_none_of_labels() -> None:
    """Entity, weight, features and excluded entities are asked for in events alone."""
    other = label(entity="nobody", weight=-5, x="three", words=17, time=[])
    assert [each.id for each in LabelReader(task()).read(records(other)).labels] == ["a"]


@pytest.mark.parametrize("field", ["label", "/deep/label"])
def test_a_label_s_field_is_its_own(field: str) -> None:
    reader = LabelReader(task(field=field, labels='label = "outcome"'))
    found = reader.read(records(label(label="no", outcome="yes")))
    assert [each.label for each in found.labels] == [1.0]


def envelope(**changes: object) -> bytes:
    told = {"specversion": "1.0", "id": "a", "source": "/s", "type": "t", "data": {"label": "yes"}}
    return msgspec.json.encode(told | changes)


def test_cloudevents_have_their_id_in_the_envelope_and_the_label_within() -> None:
    reader = LabelReader(task(format="cloudevents"))
    found = reader.read(records(envelope(), envelope(id="b", data={"label": "no"})))
    assert [(each.id, each.label) for each in found.labels] == [("a", 1.0), ("b", 0.0)]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (label(), "schema"),
        (envelope(specversion="0.3"), "schema"),
        (envelope(data=None), "label"),
        (envelope(data={}), "label"),
        (envelope(data={"label": "maybe"}), "label"),
        (envelope(data="yes"), "schema"),
        (without(envelope(), "id"), "schema"),
    ],
)
def test_envelopes_that_are_wrong_are_refused(wrong: bytes, code: str) -> None:
    found = LabelReader(task(format="cloudevents")).read(records(wrong))
    assert not found.labels
    assert [each.code for each in found.letters] == [code]


TARGETS: dict[str, tuple[str, list[bytes]]] = {
    "names": (CLASSES, [b'"no"', b'"yes"', b"null", b'"maybe"', b"1", b"true"]),
    "numbers": (
        'kind = "classify"\nclasses = ["0", "1", "2.5"]',
        [b"0", b"-0", b"1.0", b"1e0", b'"1"', b'"1.0"', b"2.5", b"25e-1", b"true", b"3"],
    ),
    "truth values": (
        'kind = "classify"\nclasses = ["false", "true"]',
        [b"true", b"false", b'"true"', b'"True"', b"1"],
    ),
    "new classes": (
        'kind = "classify"\nclasses = ["a"]\nmax_classes = 4',
        [b'"a"', b'"b"', b"12345678901234567890", b"1.50", b"true", b'""', b'"%s"' % (b"x" * 256)],
    ),
    "amounts": (
        'kind = "regress"',
        [b"1", b"-0.0", b"0.1", b"1e300", b"1.1e300", b"1e400", b"12345678901234567890", b'"1"'],
    ),
    "decimal commas": (
        'kind = "regress"\ndecimal = ","\nthousands = "."\nunit = "kWh"\nmissing = [-999, "n/a"]',
        [b'"1.234,5 kWh"', b'"1,5"', b"1.5", b'"n/a"', b"-999", b'"1.234,5 MWh"', b'"x"'],
    ),
    "durations": (
        'kind = "regress"\nduration = true',
        [b'"1h30m"', b'"01:30:00"', b'"PT90M"', b"5400", b'"soon"'],
    ),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_a_label_is_read_exactly_as_that_of_an_event(kind: str) -> None:
    target, values = TARGETS[kind]
    both = task(target)
    event = b'{"id":%d,"entity":"e","weight":1,"x":1,"words":"w","label":%s}'
    events = records(*(event % each for each in enumerate(values)))._replace(topic="t.events")
    rows, letters = Normalizer(both).normalize(events)
    own = [each for each in labels_of(rows) if each]
    found = LabelReader(both).read(
        records(*(b'{"id":%d,"label":%s}' % e for e in enumerate(values)))
    )
    assert found.labels == own
    assert [*map(repr, found.labels)] == [*map(repr, own)]  # -0 is 0 in both
    unknown = [
        (rows.partition[at], rows.offset[at])
        for at in np.flatnonzero(np.isnan(rows.label)).tolist()
    ]
    refused = {(each.partition, each.offset): (each.code, each.detail) for each in letters}
    told = {(each.partition, each.offset): (each.code, each.detail) for each in found.letters}
    assert {at: told[at] for at in refused} == refused
    assert sorted(told) == sorted([*refused, *unknown])
    assert all("null or absent" in told[at][1] for at in unknown)
    assert own
    assert told


def test_classes_that_are_new_are_named() -> None:
    target, values = TARGETS["new classes"]
    found = LabelReader(task(target)).read(
        records(*(b'{"id":%d,"label":%s}' % each for each in enumerate(values)))
    )
    assert [(each.label, each.new_class) for each in found.labels] == [
        (0.0, None),
        *((NEW_CLASS, name) for name in ("b", "12345678901234567890", "1.5", "true")),
    ]


def test_nan_is_no_label_where_it_is_read_as_missing() -> None:
    reader = LabelReader(task('kind = "regress"', non_finite="missing"))
    found = reader.read(records(b'{"id":1,"label":NaN}', b'{"id":2,"label":2,"z":-Infinity}'))
    assert [each.id for each in found.labels] == [2]
    assert [each.code for each in found.letters] == ["label"]
    assert reader.non_finite == 2


def test_no_records_are_no_labels() -> None:
    assert LabelReader(task()).read(records()) == ([], [], [])


def test_a_task_without_labels_of_their_own_has_none_to_read() -> None:
    alone: Any = task().model_copy(update={"labels": None})
    with pytest.raises(ValueError, match=r"task t has no \[labels\]"):
        LabelReader(alone)


@pytest.mark.parametrize(
    ("weight", "found"),
    [(0, 0.0), (1, 1.0), (2.5, 2.5), (1000, 1000.0), (None, 1.0), (-1, "number"), (1001, "number")],
)
def test_a_label_has_a_weight_of_its_own(weight: float | None, found: float | str) -> None:
    reader = LabelReader(task(labels='weight = "trust"'))
    read = reader.read(records(label(trust=weight, weight=7), label(id="b")))
    told = [*(each.weight for each in read.labels), *(each.code for each in read.letters)]
    assert sorted(told, key=str) == sorted([found, 1.0], key=str)
    assert {each.id for each in read.labels} >= {"b"}


def test_a_label_teaches_by_the_inverse_of_its_propensity() -> None:
    reader = LabelReader(task(labels='weight = "trust"\npropensity = "chance"'))
    read = reader.read(records(label(trust=3, chance=0.25), label(id="b", chance=0)))
    assert [each.weight for each in read.labels] == [12.0]
    assert [each.code for each in read.letters] == ["number"]


@pytest.mark.parametrize("weight", ["2", True, [1]])
def test_a_weight_that_is_no_number_is_refused(weight: object) -> None:
    reader = LabelReader(task(labels='weight = "trust"'))
    (letter,) = reader.read(records(label(trust=weight))).letters
    assert letter.code == "schema"


def test_labels_of_sources_that_are_excluded_are_refused() -> None:
    reader = LabelReader(task(labels='source = "/by/whom"\nexclude = ["bot", "7"]'))
    told = [label(id=at, by={"whom": who}) for at, who in enumerate(("bot", "ann", 7, 7.5, "Bot"))]
    read = reader.read(records(*told))
    assert [each.id for each in read.labels] == [1, 3, 4]
    assert [(each.code, each.partition, each.offset) for each in read.letters] == [
        ("excluded", 0, 100),
        ("excluded", 2, 114),
    ]
    assert [each.detail for each in read.letters] == [
        f"'{who}' is among labels.exclude" for who in ("bot", "7")
    ]
