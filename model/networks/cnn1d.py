"""A convolution over the window of an entity's rows."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from headrace.model.networks.perceptron import Features, Perceptron, activate, dense, gain, with_one
from headrace.model.networks.seen import Seen
from headrace.model.networks.window import beside, beside_width, window
from headrace.model.spec import Spec

WIDTH = 3  # rows that a filter sees at a time


class Cnn1d(nnx.Module):
    """See the same pattern wherever in the window it stands.

    One layer of filters over neighbouring rows (LeCun & Bengio 1995, "Convolutional networks for
    images, speech, and time series"), as many as the first of the hidden widths; dense layers of
    the other widths see its answers in their places, and all that is no earlier row. The windows
    of the convolution are laid out and multiplied as one matrix: XLA's own convolutions are slow
    for a single row.
    """

    def __init__(self, spec: Spec, rngs: nnx.Rngs) -> None:
        self.spec = spec
        filters, *hidden = spec.hidden
        length = spec.numeric_lags + 1
        self.width = min(WIDTH, length)
        self.filters = dense(self.width * 2 * spec.numeric, filters, gain(spec), rngs)
        places = length - self.width + 1
        inputs = places * filters + beside_width(spec)
        self.head = Perceptron(spec, inputs, tuple(hidden), rngs)

    def __call__(self, seen: Seen) -> Features:
        """Return the features f32[K, F] of rows."""
        found = activate(
            self.spec, self.filters(with_one(slide(window(self.spec, seen), self.width)))
        )
        return self.head(
            jnp.concatenate([found.reshape(len(found), -1), beside(self.spec, seen)], 1)
        )


def slide(rows: Array, width: int) -> Array:
    """Lay `width` neighbours of f32[K, L, F] side by side: f32[K, L - width + 1, width * F]."""
    places = rows.shape[1] - width + 1
    return jnp.concatenate([rows[:, at : at + places] for at in range(width)], 2)
