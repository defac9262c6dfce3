"""A recurrent network over the window of an entity's rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from headrace.model.networks.perceptron import Features, Perceptron, dense, with_one
from headrace.model.networks.seen import Seen
from headrace.model.networks.window import beside, beside_width, window
from headrace.model.spec import Spec


class Gru(nnx.Module):
    """Read the window from its oldest row to the present one, and answer from what is kept.

    Gated recurrent units (Cho et al. 2014, "Learning phrase representations using RNN
    encoder-decoder for statistical machine translation"; the reset gate after the product, as in
    cuDNN), as many as the first of the hidden widths; dense layers of the other widths see their
    last state and all that is no earlier row. It is learned through the whole window each time:
    nothing but the window is kept from one event to the next.
    """

    def __init__(self, spec: Spec, rngs: nnx.Rngs) -> None:
        self.spec = spec
        self.units, *hidden = spec.hidden
        self.read = dense(2 * spec.numeric, 3 * self.units, 1.0, rngs)
        self.keep = nnx.Linear(
            self.units,
            3 * self.units,
            use_bias=False,
            kernel_init=nnx.initializers.orthogonal(),
            rngs=rngs,
        )
        self.head = Perceptron(spec, self.units + beside_width(spec), tuple(hidden), rngs)

    def __call__(self, seen: Seen) -> Features:
        """Return the features f32[K, F] of rows."""
        steps = self.read(with_one(window(self.spec, seen)))

        def step(state: Array, read: Array) -> tuple[Array, None]:
            kept = self.keep(state)
            reset, update = jnp.split(
                jax.nn.sigmoid(read[:, : 2 * self.units] + kept[:, : 2 * self.units]), 2, 1
            )
            new = jnp.tanh(read[:, 2 * self.units :] + reset * kept[:, 2 * self.units :])
            return new + update * (state - new), None

        state, _ = lax.scan(step, jnp.zeros((len(steps), self.units)), steps.swapaxes(0, 1))
        return self.head(jnp.concatenate([state, beside(self.spec, seen)], 1))
