from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.stream.training.recent import RecentIds

Ids = list[str | int]
ids = st.integers(0, 12) | st.sampled_from(["1", "one", ""])  # 1 and "1" are two ids
streams = st.lists(ids, max_size=60)


def told(size: int, stream: Ids) -> tuple[list[int], Ids]:
    """Go through a stream an id at a time: which came before, and what is remembered then."""
    places, held = [], Ids()
    for place, each in enumerate(stream):
        if each in held:
            places.append(place)
        else:
            held = [*held, each][-size:] if size else []
    return places, held


@given(st.integers(0, 8), streams, st.sets(st.integers(0, 60)))
def test_an_answer_does_not_depend_on_how_ids_are_batched(
    size: int, stream: Ids, cuts: set[int]
) -> None:
    recent, places = RecentIds(size), list[int]()
    for first, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True):
        places += [first + place for place in recent.repeated(stream[first:stop])]
    assert (places, recent.as_list()) == told(size, stream)


@given(st.integers(1, 8), streams, streams)
def test_ids_that_were_kept_are_known_again(size: int, stream: Ids, rest: Ids) -> None:
    recent = RecentIds(size)
    recent.repeated(stream)
    heir = RecentIds(size, recent.as_list())
    assert heir.repeated(rest) == recent.repeated(rest)
    assert heir.as_list() == recent.as_list()


def test_a_repeated_id_is_no_younger_for_it() -> None:
    recent = RecentIds(2)
    assert recent.repeated(["a", "b", "a"]) == [2]
    assert recent.repeated(["c"]) == []
    assert recent.as_list() == ["b", "c"]
    assert recent.repeated(["a"]) == []
