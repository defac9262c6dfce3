"""Words, categories and entities as keyed hashes, so that strangers cannot aim collisions."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable
from functools import cache, partial
from hashlib import blake2b
from itertools import islice
from typing import Any, TypeVar

from stream.scalars import Scalar, scalar_text
from stream.task import Task

CACHED = 65_536  # answers of each kind
LONGEST = 32  # characters of a text whose answer is kept
WORD = re.compile(r"[^\W_]+|[^\w\s]")
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn"}


def hash_key(task: Task) -> bytes:
    """Give the key of a task's hashes: the digest of its key file, or of its name.

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

        def entity(asked: tuple[str, str]) -> tuple[int, int]:
            kind, text = asked
            both = named(kind, 8)(text)
            return both & 0xFFFFFFFF, both >> 32

        self._categories = Cache(category, lambda asked: len(asked[2]))
        self._entities = Cache(entity, lambda asked: len(asked[1]))
        self._words = Cache(lambda text: word(text) or 1)
        self._grams: dict[tuple[int, int, int], Cache[array[int]]] = {}

    def category(self, column: str, value: Scalar) -> int:
        """Hash a value of a column; numbers, booleans and strings never meet. Never 0."""
        return self._categories[_kind(value, "category"), column, scalar_text(value)]

    def entity(self, value: Scalar) -> tuple[int, int]:
        """Hash an entity to two unsigned 32-bit numbers."""
        return self._entities[_kind(value, "entity"), scalar_text(value)]

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
            grams = self._grams[settings] = Cache(partial(self._cut, *settings))
        fresh = array("I")
        for word in words:
            if len(hashed) + len(fresh) >= most:
                hashed |= dict.fromkeys(fresh.tolist())
                if len(hashed) >= most:
                    return list(hashed)[:most]
                fresh = array("I")
            fresh += grams[word]
        return list(hashed | dict.fromkeys(fresh.tolist()))[:most]

    def _cut(self, shortest: int, longest: int, most: int, word: str) -> array[int]:
        """Hash the first `most` distinct n-grams of a word, in 4 bytes each."""
        marked = f"<{word}>"
        grams = (
            marked[start : start + size]
            for size in range(shortest, longest + 1)
            for start in range(len(marked) - size + 1)
        )
        hashed: dict[int, None] = {}
        while len(hashed) < most and (part := dict.fromkeys(islice(grams, most))):
            hashed.update(dict.fromkeys([self._gram(gram) or 1 for gram in part]))
        return array("I", list(hashed)[:most])


def _kind(value: Scalar, strings: str) -> str:
    """Name the kind of a scalar, as a part of what is hashed; strings have the bare word."""
    if isinstance(value, str):
        return strings
    return f"{strings}: {'boolean' if isinstance(value, bool) else 'number'}"
