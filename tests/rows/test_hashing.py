"""What the hasher remembers: it changes no answer, and is bounded whatever strangers send."""

from __future__ import annotations

import gc
import random
import re
import tracemalloc
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import unbounded
from bench.workload import in_memory
from headrace.stream.rows import hashing
from headrace.stream.rows.hashing import LONGEST, Cache, Hasher, clean
from headrace.stream.rows.normalizer import Normalizer

KEY = b"key"
MOST = 256
LARGEST_ENTRY_BYTES = 1024  # of any kind: a word of LONGEST letters has 93 n-grams of 4 bytes


def ids(kind: str, texts: list[str]) -> list[int]:
    hashes = [blake2b(f"{kind}\0{t}".encode(), key=KEY, digest_size=4) for t in texts]
    return [int.from_bytes(h.digest(), "little") or 1 for h in hashes]


def tokens(text: str, shortest: int, longest: int, most: int) -> list[int]:
    """Hash all words and all n-grams, then take the first."""
    words = [*dict.fromkeys(re.findall(r"[^\W_]+|[^\w\s]", clean(text))[:most])]
    grams = [
        f"<{word}>"[start : start + size]
        for word in words
        for size in range(shortest, longest + 1)
        for start in range(len(word) + 2 - size + 1)
    ]
    return [*dict.fromkeys(ids("word", words) + ids("gram", grams))][:most]


@given(
    texts=st.lists(st.text("ab \u00e9\u0436\U0001f600.", max_size=120), max_size=8),
    shortest=st.integers(1, 5),
    longer=st.integers(0, 5),
    most=st.sampled_from([1, 2, 7, 32, 4096]),
)
def test_what_is_remembered_changes_no_token(
    texts: list[str], shortest: int, longer: int, most: int
) -> None:
    hasher, longest = Hasher(KEY), shortest + longer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "CACHED", 6)
        for text in texts + texts[::-1]:
            assert hasher.tokens(text, (shortest, longest), most) == tokens(
                text, shortest, longest, most
            )


def test_frequent_answers_outlive_a_flood_and_rare_ones_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hashing, "CACHED", 100)
    asked: list[str] = []

    def answer(text: str) -> int:
        asked.append(text)
        return int(text)

    known = Cache(answer)
    for number in range(1000):
        assert known[str(number)] == number
        assert known["7"] == 7
    assert asked.count("7") == 1
    assert [known[str(number)] for number in range(1000)] == [*range(1000)]
    assert asked.count("3") == 2
    assert known["0" * LONGEST + "1"] == known["0" * LONGEST + "1"] == 1
    assert asked[-2:] == ["0" * LONGEST + "1"] * 2, "no answer to a long text is kept"


def traced(work: Callable[[], object]) -> int:
    """Count the bytes that are still there when the work is done."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


ASKED: dict[str, Callable[[Hasher, str], object]] = {
    "words": lambda hasher, text: hasher.tokens(text, (3, 5), MOST),
    "a category": lambda hasher, text: hasher.category("color", text),
    "an entity": lambda hasher, text: hasher.entity(text),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("letters", ["abcdefgh", "\U00010400\U00010401\U00010402\U00010403"])
@pytest.mark.parametrize(("length", "count"), [(LONGEST, 3000), (5000, 60)])
def test_new_texts_without_end_leave_a_bounded_number_of_bytes(
    asked: Callable[[Hasher, str], object],
    letters: str,
    length: int,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hashing, "CACHED", 400)
    rng, hasher = random.Random(0), Hasher(KEY)

    def flood() -> None:
        for _ in range(count):
            asked(hasher, "".join(rng.choices(letters, k=length)))

    bound = 400 * LARGEST_ENTRY_BYTES if length <= LONGEST else 50_000
    assert traced(flood) < bound


def test_a_stream_without_end_is_normalised_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "CACHED", 256)
    task = unbounded.write_task(tmp_path, "bench-x")
    normalizer, values = Normalizer(task), [*unbounded.events(8_192)]

    def learn() -> None:
        for records in in_memory(task, values):
            rows, dead = normalizer.normalize(records)
            assert not dead
            assert rows.ids.all(1).any()

    kinds = 4  # words, n-grams, categories, entities
    assert traced(learn) < 256 * kinds * LARGEST_ENTRY_BYTES
