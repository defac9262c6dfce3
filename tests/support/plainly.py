"""Programs that XLA compiles fast rather than well, for tests that try dozens of them."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest

from headrace.model.learner import make_learner


@pytest.fixture
def plainly_compiled() -> Iterator[None]:
    """Let XLA compile in a third of the time programs that are slower, and round otherwise.

    For checks that try dozens of shapes for a few rows each, and ask how an estimator behaves:
    what a learner says is tested elsewhere, as users' programs are compiled. None of these
    programs outlives the test.
    """
    name = "jax_disable_most_optimizations"
    _forget_programs()
    jax.config.update(name, True)  # type: ignore[no-untyped-call]
    yield
    jax.config.update(name, False)  # type: ignore[no-untyped-call]
    _forget_programs()


def _forget_programs() -> None:
    make_learner.cache_clear()
    jax.clear_caches()  # type: ignore[no-untyped-call]
