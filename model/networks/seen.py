"""What a network sees of rows, and how it looks as one flat row."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from headrace.model import embed
from headrace.model.embed import Embedded
from headrace.model.spec import Spec


class Seen(NamedTuple):
    """Hold the rows that a network is asked about."""

    dense: Array  # f32[K, I]  as `inputs.load_row` lays them out; zeros where a view hides them
    embedded: Embedded  # their hashed ids as vectors, the same in every view


def flat(seen: Seen) -> Array:
    """Put all of it side by side, f32[K, flat_width]."""
    return jnp.concatenate([seen.dense, seen.embedded.single, seen.embedded.bags], 1)


def flat_width(spec: Spec) -> int:
    """Count what `flat` puts side by side."""
    return spec.inputs + embed.width(spec)
