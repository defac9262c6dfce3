"""What a regression learns: the rest that the last label and the mean leave unexplained.

The anchor of a prediction is the mean of the labels, moved towards the entity's last known label
by as much as consecutive labels go together (the forecast of a first-order autoregression, with
its coefficient measured on the way: Box & Jenkins 1970). The network learns the rest, in
its standard deviations.
Before labels say otherwise the last one counts whole; on a stream without memory the coefficient
soon is near 0, and the anchor is the running mean.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from headrace.model import scale

BELIEF = 1.0  # labels that seem to have followed their last ones, before there are any


class TargetState(NamedTuple):
    """Hold what is known of the labels."""

    level: scale.ScaleState  # of the labels
    rest: scale.ScaleState  # of labels less their anchors
    together: Array  # f32[2]  mean of (y - m)(last - m), mean of (last - m)^2


def init() -> TargetState:
    """Start with nothing known."""
    return TargetState(scale.init(1), scale.init(1), jnp.zeros(2))


def anchor(state: TargetState, last: Array) -> Array:
    """Return the anchor f32[...] of rows whose entity's last known label was `last`, NaN = none."""
    level = state.level
    doubt = BELIEF * level.variance[0] / jnp.maximum(level.seen[0], 1.0)
    persistence = (state.together[0] + doubt) / jnp.maximum(state.together[1] + doubt, 1e-30)
    persistence = jnp.where(level.seen[0] > 1.0, jnp.clip(persistence, 0.0, 1.0), 1.0)
    mean = level.mean[0]
    return mean + jnp.where(jnp.isnan(last), 0.0, persistence * (last - mean))


def goal(state: TargetState, label: Array, last: Array) -> Array:
    """Return what the network should put out for labels f32[K]; 0 while nothing is known."""
    return scale.transform(state.rest, (label - anchor(state, last))[:, None], jnp.zeros(1))[:, 0]


def again(state: TargetState, last: Array) -> Array:
    """Return the goals f32[K] of seeing the last labels again; 0 where there is none."""
    return same(state, last, last)


def same(state: TargetState, label: Array, last: Array) -> Array:
    """Return the goals f32[..., K] of seeing these labels; 0 where there is none."""
    expected = scale.transform(state.rest, (label - anchor(state, last))[..., None], jnp.zeros(1))
    return jnp.where(jnp.isnan(label), 0.0, expected[..., 0])


def value(state: TargetState, output: Array, last: Array) -> Array:
    """Turn an output of the network into a label; the anchor alone while no rest is known."""
    width = jnp.where(state.rest.seen[0] > 0.0, scale.deviation(state.rest)[0], 0.0)
    return anchor(state, last) + width * output


def update(state: TargetState, labels: Array, last: Array) -> TargetState:
    """Take in labels f32[K] and what was the last label before each; NaN counts as not seen.

    The first labels have no rest: nothing was expected of them.
    """
    anchors = jnp.where(state.level.seen[0] > 0.0, anchor(state, last), jnp.nan)
    rest = scale.update(state.rest, (labels - anchors)[:, None])
    level = scale.update(state.level, labels[:, None])
    both = ~(jnp.isnan(labels) | jnp.isnan(last))
    mean = level.mean[0]
    far = scale.COUNTS * scale.deviation(level)[0]
    y = jnp.where(both, jnp.clip(labels - mean, -far, far), 0.0)
    before = jnp.where(both, jnp.clip(last - mean, -far, far), 0.0)
    new = both.sum().astype(jnp.float32)
    products = jnp.stack([(y * before).sum(), (before * before).sum()])
    share = 1.0 / jnp.maximum(level.seen[0], 1.0)
    return TargetState(level, rest, state.together + share * (products - new * state.together))
