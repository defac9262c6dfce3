"""The parts of one kind by name: our own, and those that others register beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def told(error: Exception, most: int = 300) -> str:
    """Tell an error of a stranger's function as text that can be written, whatever it says."""
    kind = type(error).__name__
    try:
        text = f"{kind}: {error}"[:most]
    except Exception:  # of its own `__str__`
        text = kind
    return text.encode(errors="replace").decode()


class Registry(dict[str, T]):
    """Hold the parts of one kind by their names, our own first.

    Args:
        kind: what one of them is called.
        form: what each of them is an instance of, as `isinstance` takes it.
        expected: the same in words.
        own: ours.
    """

    def __init__(self, kind: str, form: Any, expected: str, own: Mapping[str, T]) -> None:
        super().__init__(own)
        self.kind, self.own = kind, tuple(own)
        self._form, self._expected = form, expected

    def register(self, name: str, part: T) -> None:
        """Let specs and tasks name a part from elsewhere.

        Raises:
            TypeError: it is none of this kind.
            ValueError: another one has the name.
        """
        if not isinstance(part, self._form):
            raise TypeError(
                f"{self.kind} {name!r} is a {type(part).__name__}, expected {self._expected}"
            )
        if self.setdefault(name, part) is not part:
            raise ValueError(f"{self.kind} {name!r}: expected a name that no other {self.kind} has")
