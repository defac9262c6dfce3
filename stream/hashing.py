"""Words, categories and entities as keyed hashes, so that strangers cannot aim collisions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

from stream.scalars import Scalar, scalar_text
from stream.task import Task

CACHED = 65_536
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


class Hasher:
    """Hash with one key, remembering the last CACHED answers of each kind."""

    def __init__(self, key: bytes) -> None:
        def digest(kind: str, value: str, size: int) -> int:
            data = f"{kind}\0{value}".encode()
            return int.from_bytes(blake2b(data, key=key, digest_size=size).digest(), "little")

        def category(kind: str, column: str, text: str) -> int:
            text = clean(text).strip() if kind == "category" else text
            return digest(f"{kind}\0{column}", text, 4) or 1

        def entity(kind: str, text: str) -> tuple[int, int]:
            both = digest(kind, text, 8)
            return both & 0xFFFFFFFF, both >> 32

        def word(value: str, shortest: int, longest: int) -> tuple[int, ...]:
            marked = f"<{value}>"
            grams = [
                marked[start : start + size]
                for size in range(shortest, longest + 1)
                for start in range(len(marked) - size + 1)
            ]
            return tuple(
                [digest("word", value, 4) or 1] + [digest("gram", g, 4) or 1 for g in grams]
            )

        self._category: Callable[[str, str, str], int] = lru_cache(CACHED)(category)
        self._entity: Callable[[str, str], tuple[int, int]] = lru_cache(CACHED)(entity)
        self._word: Callable[[str, int, int], tuple[int, ...]] = lru_cache(CACHED)(word)

    def category(self, column: str, value: Scalar) -> int:
        """Hash a value of a column; numbers, booleans and strings never meet. Never 0."""
        return self._category(_kind(value, "category"), column, scalar_text(value))

    def entity(self, value: Scalar) -> tuple[int, int]:
        """Hash an entity to two unsigned 32-bit numbers."""
        return self._entity(_kind(value, "entity"), scalar_text(value))

    def words(self, text: str, ngrams: tuple[int, int], most: int) -> list[int]:
        """Hash the first `most` words of a text in their order, each as `tokens` does."""
        return [self._word(word, *ngrams)[0] for word in WORD.findall(clean(text))[:most]]

    def tokens(self, text: str, ngrams: tuple[int, int], most: int) -> list[int]:
        """Hash the distinct words of a text, then their character n-grams, `most` at most.

        N-grams carry word boundaries as in Bojanowski et al. (2017), "Enriching word vectors with
        subword information".
        """
        words = WORD.findall(clean(text))[:most]
        hashed = [self._word(word, *ngrams) for word in dict.fromkeys(words)]
        grams = (gram for word in hashed for gram in word[1:])
        return list(dict.fromkeys([*(word[0] for word in hashed), *grams]))[:most]


def _kind(value: Scalar, strings: str) -> str:
    """Name the kind of a scalar, as a part of what is hashed; strings have the bare word."""
    if isinstance(value, str):
        return strings
    return f"{strings}: {'boolean' if isinstance(value, bool) else 'number'}"
