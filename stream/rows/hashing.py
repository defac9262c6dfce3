"""Words, categories and entities as keyed hashes, so that strangers cannot aim collisions."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.stream.formats.scalars import Scalar, scalar_text
from headrace.stream.task import Task
from headrace.stream.task.features import Category

CACHED = 65_536  # answers of each kind
LONGEST = 32  # characters of a text whose answer is kept
WORD = re.compile(r"[^\W_]+|[^\w\s]")
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn"}


def hash_key(task: Task) -> bytes:
    """Return the key of a task's hashes: the digest of its key file, or of its name.

    Raises:
        OSError: the key file cannot be read.
    """
    secret = task.hash_key_file.read_bytes() if task.hash_key_file else task.name.encode()
    return blake2b(secret, digest_size=32).digest()


def clean(text: str) -> str:
    """Compose (NFC), fold case, and turn control, format and bidi characters into spaces.

    Whitespace is kept; zero-width and direction marks go, so that look-alikes hash alike.
    """
    text = unicodedata.normalize("NFC", text)
    if not (text.isascii() and text.isprintable()):
        text = "".join(
            c if c.isspace() else "" if unicodedata.category(c) in HIDDEN else c for c in text
        )
    return text.casefold()


Answer = TypeVar("Answer")


class Cache(dict[Any, Answer]):
    """Keep a pure function's answers to its latest arguments: CACHED at most, none to a long text.

    The newer half is this dict; when it is full it becomes the older half, and that one is dropped.
    An answer that is needed again moves back, so what is frequent stays, as in an LRU cache; but a
    hit is one lookup in a dict.

    Args:
        length: of an argument as a text.
    """

    def __init__(
        self, function: Callable[[Any], Answer], length: Callable[[Any], int] = len
    ) -> None:
        super().__init__()
        self._function, self._length = function, length
        self._older: dict[Any, Answer] = {}

    def __missing__(self, argument: Any) -> Answer:
        answer = self._older.pop(argument, None)
        if answer is None:
            answer = self._function(argument)
            if self._length(argument) > LONGEST:
                return answer
        if len(self) >= CACHED // 2:
            self._older = self.copy()
            self.clear()
        self[argument] = answer
        return answer


class Hasher:
    """Hash with one key, remembering the latest answers of each kind.

    An entity or a category takes 250 bytes, a word of 8 letters 330 with its n-grams, and one of 32
    letters 700: 50 MB in all where every text is new, and 100 MB at the worst.
    """

    def __init__(self, key: bytes) -> None:
        def hashing(kind: str, size: int) -> Callable[[str], int]:
            begin = blake2b(f"{kind}\0".encode(), key=key, digest_size=size).copy

            def digest(text: str) -> int:
                begun = begin()
                begun.update(text.encode())
                return int.from_bytes(begun.digest(), "little")

            return digest

        named = cache(hashing)
        word, self._gram = hashing("word", 4), hashing("gram", 4)

        def category(asked: tuple[str, str, str]) -> int:
            kind, column, text = asked
            text = clean(text).strip() if kind == "category" else text
            return named(f"{kind}\0{column}", 4)(text) or 1

        def grams(asked: tuple[str, tuple[int, int], int, str]) -> array[int]:
            column, ngrams, most, text = asked
            digest = named(f"category gram\0{column}", 4)
            return _cut(clean(text).strip(), *ngrams, most, digest)

        def entity(asked: tuple[str, str]) -> tuple[int, int]:
            kind, text = asked
            both = named(kind, 8)(text)
            return both & 0xFFFFFFFF, both >> 32

        self._categories = Cache(category, lambda asked: len(asked[2]))
        self._entities = Cache(entity, lambda asked: len(asked[1]))
        self._words = Cache(lambda text: word(text) or 1)
        self._category_grams = Cache(grams, lambda asked: len(asked[3]))
        self._places = cache(lambda kind: hashing(f"place\0{kind}", 8))
        self._crosses = cache(lambda names: hashing("cross", 8)("\0".join(names)))
        self._grams: dict[tuple[int, int, int], Cache[array[int]]] = {}

    def category(self, column: str, value: Scalar) -> int:
        """Hash a value of a column; numbers, booleans and strings never meet. Never 0."""
        return self._categories[_kind(value, "category"), column, scalar_text(value)]

    def listed(self, column: str, values: Sequence[Scalar | None], how: Category) -> list[int]:
        """Hash what stands in a list: the values if they are several, and strings' n-grams if any.

        These are `how.max_tokens` distinct ids at most, values first; None is no value.
        Values are in the order of their hashes, so that the list's does not count. N-grams carry
        the ends of a value, and blanks within it.
        """
        by_hash = {self.category(column, value): value for value in values if value is not None}
        hashed = dict.fromkeys(sorted(by_hash))
        found = hashed.copy() if how.several else {}
        for value in map(by_hash.__getitem__, hashed) if how.ngrams else ():
            if len(found) >= how.max_tokens:
                break
            if isinstance(value, str):
                asked = column, how.ngrams, how.max_tokens, value
                found |= dict.fromkeys(self._category_grams[asked].tolist())
        return list(found)[: how.max_tokens]

    def cross(self, names: tuple[str, ...], ids: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Hash the combinations of categories' ids [n, C]; 0, absent, where one of them is.

        The ids are keyed hashes, so what mixes them need not be: xor, and multiplication by an odd
        number (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
        """
        mixed = np.full(len(ids), self._crosses(names), np.uint64)
        for column in ids.T:
            mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(32)
        found = np.maximum(mixed.astype(np.uint32), np.uint32(1))
        return np.where((ids != 0).all(1), found, np.uint32(0))

    def entity(self, value: Scalar) -> tuple[int, int]:
        """Hash an entity to two unsigned 32-bit numbers."""
        return self._entities[_kind(value, "entity"), scalar_text(value)]

    def place(self, kind: str, value: Scalar) -> float:
        """Hash a value to a number in [0, 1), evenly: so samples of a `kind` are drawn by value."""
        hashed = self._places(_kind(value, kind))(scalar_text(value))
        return (hashed >> 11) * 2.0**-53

    def words(self, text: str, most: int) -> list[int]:
        """Hash the first `most` words of a text in their order, each as `tokens` does."""
        return [self._words[word] for word in WORD.findall(clean(text))[:most]]

    def tokens(self, text: str, ngrams: tuple[int, int], most: int) -> list[int]:
        """Hash the distinct words of a text, then their character n-grams, `most` at most.

        N-grams carry word boundaries as in Bojanowski et al. (2017), "Enriching word vectors with
        subword information". Those of words for which there is no room left are not made.
        """
        words = dict.fromkeys(WORD.findall(clean(text))[:most])
        hashed = dict.fromkeys([self._words[word] for word in words])
        settings = (*ngrams, most)
        grams = self._grams.get(settings)
        if grams is None:
            grams = self._grams[settings] = Cache(lambda w: _cut(w, *settings, self._gram))
        fresh = array("I")
        for word in words:
            if len(hashed) + len(fresh) >= most:
                hashed |= dict.fromkeys(fresh.tolist())
                if len(hashed) >= most:
                    return list(hashed)[:most]
                fresh = array("I")
            fresh += grams[word]
        return list(hashed | dict.fromkeys(fresh.tolist()))[:most]


def _cut(
    text: str, shortest: int, longest: int, most: int, digest: Callable[[str], int]
) -> array[int]:
    """Hash the first `most` distinct n-grams of a text, in 4 bytes each."""
    marked = f"<{text}>"
    grams = (
        marked[start : start + size]
        for size in range(shortest, longest + 1)
        for start in range(len(marked) - size + 1)
    )
    hashed: dict[int, None] = {}
    while len(hashed) < most and (part := dict.fromkeys(islice(grams, most))):
        hashed.update(dict.fromkeys([digest(gram) or 1 for gram in part]))
    return array("I", list(hashed)[:most])


def _kind(value: Scalar, strings: str) -> str:
    """Name the kind of a scalar, as a part of what is hashed; strings have the bare word."""
    if isinstance(value, str):
        return strings
    return f"{strings}: {'boolean' if isinstance(value, bool) else 'number'}"
