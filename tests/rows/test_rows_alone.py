"""A row is a function of its event alone: of no other event, no cut, no process."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fresh_rows import FreshRows, Row

TASK = """
name = "alone"
calendar = ["hour"]
cross = [["c", "both"]]
[input]
topic = "t"
entity = "entity"
time = "time"
exclude = ["7"]
recent_ids = 0
[target]
field = "label"
kind = "classify"
classes = ["1", "no"]
max_classes = 40
[features]
c = { kind = "category" }
both = { kind = "category" }
number = { kind = "number", field = "both", min = -10, missing = [3] }
text = { kind = "text", max_tokens = 8 }
spelt = { kind = "category", field = "c", ngrams = [2, 3], max_tokens = 6 }
tags = { kind = "category", several = true, ngrams = [2, 2], max_tokens = 5 }
"""

SAME = [  # spellings of JSON scalars: those of a line are one value, and no other line's
    ["1", "1.0", "1e0", "10E-1", "1.000"],
    ["0", "-0", "0.0", "-0.0", "0e5"],
    ["true"],
    ["false"],
    ['"1"', r'"\u0031"'],
    ['"1.0"'],
    ['"true"'],
    ['"0"'],
    ['"-0"'],
    ["7", "7.0"],
    ['"7"'],
    ["2.5", "25e-1"],
    ["9007199254740993"],  # 2^53 + 1: no float64
    ["9007199254740992", "9007199254740992.0"],
    ["123456789012345678901234567890"],
    ["1e300"],
    ["5e-324"],
    ['"Yes"', '"Ye\\u0073"'],
    ['""'],
    ["null"],
]
SPELLINGS = [(line, text) for line, texts in enumerate(SAME) for text in texts]
scalar = st.sampled_from([text for _, text in SPELLINGS])
TIMES = ["1714564800", "1714564800.0", "1714564800000", '"2024-05-01T12:00:00Z"', '"no time"']


def event(
    number: str, entity: str, time: str, label: str, c: str, both: str, text: str, tags: str
) -> bytes:
    return (
        f'{{"id":{number},"entity":{entity},"time":{time},"label":{label},"c":{c},"both":{both},'
        f'"text":{text},"tags":{tags}}}'
    ).encode()


events = st.builds(
    event,
    number=scalar,
    entity=scalar,
    time=st.sampled_from(TIMES),
    label=scalar,
    c=scalar,
    both=scalar,
    text=st.sampled_from(['"one"', '"one two"', "null", '"\\u202eowt"', '"1 true 1.0"']),
    tags=st.lists(scalar, max_size=4).map(lambda tags: f"[{','.join(tags)}]") | scalar,
)


@pytest.fixture(scope="module")
def fresh() -> Iterator[list[FreshRows]]:
    made = [FreshRows(seed) for seed in (0, 1)]
    yield made
    for each in made:
        each.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, min_size=1, max_size=24), st.data())
def test_rows_do_not_depend_on_order_cut_or_process(
    fresh: list[FreshRows], raws: list[bytes], data: st.DataObject
) -> None:
    placed = list(enumerate(raws))
    first = fresh[0].rows(TASK, [placed])
    shuffled = data.draw(st.permutations(placed))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raws)))))
    pieces = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(raws)], strict=True) if a < b]
    assert fresh[1].rows(TASK, pieces) == first
    alone = data.draw(st.sampled_from(placed))
    assert fresh[0].rows(TASK, [[alone]]) == {str(alone[0]): first[str(alone[0])]}


def test_each_scalar_has_one_text_however_it_is_written(fresh: list[FreshRows]) -> None:
    """Spellings of one value give one row; other values, another category, entity and class."""

    def rows(field: str) -> dict[str, Row]:
        usual = {"number": '"i"', "entity": '"e"', "time": TIMES[0], "label": "null"}
        usual |= {"c": "null", "both": "null", "text": "null", "tags": "null"}
        raws = [event(**usual | {field: text}) for _, text in SPELLINGS]
        found = fresh[0].rows(TASK, [list(enumerate(raws))])
        return {text: found[str(at)] for at, (_, text) in enumerate(SPELLINGS)}

    for field in ("number", "entity", "label", "c", "both", "tags"):
        found = rows(field)
        for texts in SAME:
            assert all(found[text] == found[texts[0]] for text in texts), (field, texts)
    for field in ("entity", "c", "tags"):
        kept = [json.dumps(rows(field)[texts[0]]) for texts in SAME]
        taken = [row for row in kept if row not in ('"excluded"', '"schema"')]
        assert len(set(taken)) == len(taken) >= len(SAME) - 3, field
    labels = rows("label")
    assert labels["true"] == labels['"true"'] != labels["1"] == labels['"1"']
    assert labels["7"] == labels['"7"']
    assert rows("number")["true"] == "schema"
    assert rows("number")["2.5"] == "id"
