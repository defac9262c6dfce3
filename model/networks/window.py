"""The window: an entity's earlier rows and its present one, in the order of time."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from headrace.model import embed
from headrace.model.networks.seen import Seen
from headrace.model.spec import Spec


def window(spec: Spec, seen: Seen) -> Array:
    """Take the window f32[K, W + 1, 2 N] out of what `inputs.load_row` laid out, oldest row first.

    A row is its N standardised values, then the N flags of those that are missing; all of a row
    from before the entity's first are. W is `spec.numeric_lags`.
    """
    rows, columns = spec.numeric_lags, spec.numeric
    present, held, _ = jnp.split(seen.dense, _borders(spec), 1)
    values, missing = jnp.split(held.reshape(len(held), 2 * rows, columns), 2, 1)
    newest_first = jnp.concatenate([values, missing], 2)
    return jnp.concatenate([newest_first[:, ::-1], present[:, None, spec.pixels :]], 1)


def beside(spec: Spec, seen: Seen) -> Array:
    """Put all but the earlier rows side by side, f32[K, beside_width]."""
    present, _, rest = jnp.split(seen.dense, _borders(spec), 1)
    return jnp.concatenate([present, rest, seen.embedded.single, seen.embedded.bags], 1)


def beside_width(spec: Spec) -> int:
    """Count what `beside` puts side by side."""
    first, last = _borders(spec)
    return spec.inputs - (last - first) + embed.width(spec)


def _borders(spec: Spec) -> list[int]:
    """Return where the earlier rows begin and end among the inputs."""
    return [spec.row_inputs, spec.row_inputs + 2 * spec.numeric_lags * spec.numeric]
