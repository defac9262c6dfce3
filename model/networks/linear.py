"""Linear regression, or the logistic: no hidden layer and no vectors."""

from __future__ import annotations

from flax import nnx

from headrace.model.networks.perceptron import Features, Perceptron
from headrace.model.networks.seen import Seen
from headrace.model.spec import Spec


class Linear(nnx.Module):
    """See the numbers only: categories and words already count by weights of their own.

    What each of them says alone is added to every network's outputs (`chunk_training`), so a
    linear map of their vectors would say it twice, and would not be linear in both its factors.
    """

    def __init__(self, spec: Spec, rngs: nnx.Rngs) -> None:
        self.head = Perceptron(spec, spec.inputs, (), rngs)

    def __call__(self, seen: Seen) -> Features:
        """Return the features f32[K, F] of rows."""
        return self.head(seen.dense)
