from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.stream.errors import TaskError
from headrace.stream.events import Records, Reject
from headrace.stream.formats.codec import Codec
from headrace.stream.rows.normalizer import Normalizer
from headrace.stream.task import Task, parse, validate
from tests.support.events import IMAGE_POISON, IMAGE_TASK, POISON, TASK, coded, good, picture
from tests.support.hostile import STRINGS

task = parse(TASK, "test")
codec = Codec(task)
CASES = [
    pytest.param(parse(text, "test"), make, raw, code, id=name)
    for text, make, corpus in ((TASK, good, POISON), (IMAGE_TASK, picture, IMAGE_POISON))
    for name, (raw, code) in corpus.items()
]
MakeEvent = Callable[[int], bytes]


def records(values: list[bytes | None]) -> Records:
    n = len(values)
    return Records("events.poisoned", values, [None] * n, [0] * n, list(range(n)), [])


def decoded(raw: bytes | None, codec: Codec = codec) -> object:
    """Decode one event in a batch of its own."""
    columns, refused = codec.decode_all([raw])
    return refused[0] if refused else tuple(value for [value] in columns)


@pytest.mark.parametrize(("task", "good", "raw", "code"), CASES)
def test_poison_is_refused_with_its_code_and_its_bytes(
    task: Task, good: MakeEvent, raw: bytes | None, code: str
) -> None:
    rows, dead = Normalizer(task).normalize(records([good(1), raw, good(2)]))
    assert rows.id == ["e-1", "e-2"]
    assert [(letter.code, letter.raw, letter.offset) for letter in dead] == [(code, raw, 1)]
    assert dead[0].detail


def test_all_poison_at_once_changes_no_good_row() -> None:
    normalizer, poison = Normalizer(parse(IMAGE_TASK, "test")), POISON | IMAGE_POISON
    mixed: list[bytes | None] = []
    for number, (raw, _) in enumerate(poison.values()):
        mixed += [picture(number), raw]
    rows, dead = normalizer.normalize(records(mixed))
    clean, none = normalizer.normalize(records([picture(n) for n in range(len(poison))]))
    assert not none
    assert len(dead) == len(poison)
    for name in ("numeric", "ids", "entity", "label", "time_ms", "image"):
        assert getattr(rows, name).tobytes() == getattr(clean, name).tobytes()


@pytest.mark.parametrize(("task", "good", "raw", "code"), CASES)
def test_many_events_are_decoded_as_each_alone(
    task: Task, good: MakeEvent, raw: bytes | None, code: str
) -> None:
    assert decoded(raw, Codec(task)) == Codec(task).decode(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()))
def test_no_bytes_make_the_decoder_raise(raw: bytes) -> None:
    assert isinstance(codec.decode(raw), Reject | tuple)
    assert decoded(raw) == codec.decode(raw)


KEYS = ["id", "time", "entity", "x", "y", "color", "text", "label", "z"]


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(['"a"', "1", "null", '"\\""']))))
def test_a_key_that_stands_twice_is_always_found(pairs: list[tuple[str, str]]) -> None:
    raw = ("{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}").encode()
    twice = len({key for key, _ in pairs}) < len(pairs)
    for found in (codec.decode(raw), decoded(raw)):
        if twice:
            assert isinstance(found, Reject)
        elif isinstance(found, Reject):
            assert found.code != "duplicate_key"


def test_missing_fields_and_unknown_ones_are_fine() -> None:
    raw = b'{"id":7,"time":1714564800,"entity":1,"more":{"x":[1,2]}}'
    assert codec.decode(raw) == (7, None, 1, 1714564800.0, None, None, None, None)
    assert decoded(raw) == codec.decode(raw)


def test_cloudevents_carry_id_and_time_in_the_envelope() -> None:
    text = TASK.replace('time = "time"', 'time = "time"\nformat = "cloudevents"')
    envelope = {
        "specversion": "1.0",
        "id": "ce-1",
        "source": "/x",
        "type": "t",
        "time": "2024-05-01T12:00:00Z",
        "data": {"entity": "a", "x": 1.5, "label": "yes"},
    }
    enveloped = Codec(parse(text, "test"))
    wanted = ("ce-1", "yes", "a", "2024-05-01T12:00:00Z", 1.5, None, None, None)
    assert enveloped.decode(json.dumps(envelope).encode()) == wanted
    old = enveloped.decode(json.dumps(envelope | {"specversion": "0.3"}).encode())
    assert isinstance(old, Reject)
    assert old.code == "schema"


@pytest.mark.parametrize("name", STRINGS, ids=ascii)
@pytest.mark.parametrize("escaped", [True, False])
def test_a_field_may_have_any_name(name: str, escaped: bool) -> None:
    inner = {"field": f"/meta/{name.replace('~', '~0').replace('/', '~1')}", "kind": "category"}
    table = {
        "name": "t",
        "input": {"topic": "e"},
        "target": {"field": "y", "kind": "regress"},
        "features": {name: {"kind": "number"}, "größe": {"kind": "number"}, "inner": inner},
    }
    named = Codec(validate(table, "test"))
    event = {"id": 1, "y": 2.5, name: 3, "größe": 4, "meta": {name: "v"}, "more": [1]}

    def raw(value: object) -> bytes:
        return json.dumps(value, ensure_ascii=escaped).encode()

    assert decoded(raw(event), named) == (1, 2.5, 3.0, 4.0, "v")
    assert decoded(raw({"id": 1}), named) == (1, None, None, None, None)
    assert decoded(raw(event | {"meta": None}), named) == (1, 2.5, 3.0, 4.0, None)
    for wrong, code in (
        (raw(event | {name: "x"}), "schema"),
        (raw(event | {"meta": {name: [1]}}), "schema"),
        (raw(event | {"meta": 1}), "schema"),
        (raw(event | {"größe": "x"}), "schema"),
        (raw({"y": 1}), "schema"),
        (raw(event)[:-1] + b"," + raw({name: 4})[1:], "duplicate_key"),
    ):
        refused = decoded(wrong, named)
        assert isinstance(refused, Reject)
        assert refused.code == code


def test_json_pointers_reach_nested_fields() -> None:
    text = TASK.replace('x = { kind = "number"', 'x = { field = "/a/b~1c", kind = "number"')
    nested = Codec(parse(text, "test"))
    raw = b'{"id":"1","time":0,"entity":"e","a":{"b/c":2.5}}'
    assert nested.decode(raw) == ("1", None, "e", 0.0, 2.5, None, None, None)
    assert nested.decode(raw.replace(b"2.5", b'"2.5"')) == Reject(
        "schema", "a.b/c: '2.5' is text, expected a number or null"
    )


def test_an_object_that_is_null_holds_nothing_unless_it_has_to() -> None:
    text = TASK.replace('x = { kind = "number"', 'x = { field = "/a/b/c", kind = "number"')
    nested = Codec(parse(text, "test"))
    values = [
        b'{"id":"1","time":0,"entity":"e","a":%s}' % a
        for a in (b'{"b":{"c":2.5}}', b"null", b'{"b":null}', b"{}", b'{"b":{}}')
    ]
    columns, refused = nested.decode_all(values)
    assert not refused
    assert columns[4] == (2.5, None, None, None, None)
    assert [nested.decode(value)[4] for value in values] == [2.5, None, None, None, None]
    within = Codec(parse(TASK.replace("[input]", '[input]\nid = "/head/id"'), "test"))
    refusal = decoded(b'{"head":null,"time":0,"entity":"e"}', within)
    assert isinstance(refusal, Reject)
    assert refusal == Reject("schema", "head: null, expected an object")


def test_a_field_cannot_be_value_and_object() -> None:
    text = TASK.replace('x = { kind = "number"', 'x = { field = "/y/z", kind = "number"')
    with pytest.raises(TaskError, match="y is mapped as a value and as an object"):
        Codec(parse(text, "test"))


@pytest.mark.parametrize("other", ["text", "id"])
def test_a_field_cannot_be_an_image_and_something_else(other: str) -> None:
    text = IMAGE_TASK.replace('{ kind = "image"', f'{{ field = "{other}", kind = "image"')
    with pytest.raises(TaskError, match=f"{other} is mapped as an image and as something else"):
        Codec(parse(text, "test"))


def test_an_image_is_decoded_to_the_bytes_that_were_coded() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 2, 3, 4)).astype(np.uint8)
    raws: list[bytes | None] = [picture(n, photo=coded(p.tobytes())) for n, p in enumerate(pixels)]
    rows, dead = Normalizer(parse(IMAGE_TASK, "test")).normalize(records(raws))
    assert not dead
    assert rows.image.shape == pixels.shape
    assert (rows.image == pixels).all()


def test_a_field_of_two_kinds_has_to_be_both() -> None:
    """A text where a number was mapped as well used to end the process."""
    text = TASK.replace("color = { kind", 'color = { field = "x", kind')
    codec = Codec(parse(text.replace('entity = "entity"', 'entity = "y"'), "t"))
    values: list[bytes | None] = [
        good(0, x=3),
        good(1, x="three"),
        good(2, x=2**70),
        good(3, y="a"),
    ]
    columns, refused = codec.decode_all(values)
    assert {at: reject.code for at, reject in refused.items()} == {1: "schema", 3: "schema"}
    assert columns[6] == (3, 2**70)
    rows, letters = Normalizer(parse(text, "t")).normalize(
        records([good(0, x=10**400), good(1, x=3)])
    )
    assert letters == []
    assert np.isnan(rows.numeric[0, 0])  # beyond float64: missing
    assert rows.numeric[1, 0] == 3
    with pytest.raises(TaskError, match="text is mapped twice, as kinds that no value is both of"):
        Codec(parse(TASK.replace("x = { kind", 'x = { field = "text", kind'), "t"))


def test_what_is_mapped_twice_hides_no_other_key() -> None:
    """The count of quotes that spares most events a second look once forgot shared fields."""
    codec = Codec(parse(TASK.replace('time = "time"', 'time = "entity"'), "t"))
    raw = good(0, entity="2024-05-01T12:00:00Z")[:-1] + b',"y":1}'
    _, refused = codec.decode_all([raw])
    assert refused[0].code == "duplicate_key"
