"""A network that sees products of its inputs: one cross layer before the dense ones.

Wang, Fu, Fu and Wang (2017), "Deep & cross network for ad click predictions", ADKDD.
"""

from __future__ import annotations

from flax import nnx

from headrace.model.networks import Features, Seen
from headrace.model.networks.perceptron import Perceptron, dense, with_one
from headrace.model.networks.seen import flat, flat_width
from headrace.model.spec import Spec


class Crossed(nnx.Module):
    """Multiply all that is seen by one learned sum of it; the head sees the products and more.

    A network ends in its `head`, whose last, linear layer headrace adds; its parameters are
    matrices. What it cannot do without it says by a ValueError.
    """

    def __init__(self, spec: Spec, rngs: nnx.Rngs) -> None:
        if not spec.numeric:
            raise ValueError("it multiplies numbers: expected a number among features")
        width = flat_width(spec)
        self.cross = dense(width, 1, 0.01, rngs)
        self.head = Perceptron(spec, width, spec.hidden, rngs, spec.pixels)

    def __call__(self, seen: Seen) -> Features:
        """Return the features f32[K, F] of rows."""
        rows = flat(seen)
        return self.head(rows + rows * self.cross(with_one(rows)))
