"""A bag of words: the sum of their vectors, mapped to the outputs by one layer."""

from __future__ import annotations

from flax import nnx

from headrace.model.networks.perceptron import Features, Perceptron
from headrace.model.networks.seen import Seen, flat, flat_width
from headrace.model.spec import Spec


class TextBag(nnx.Module):
    """See words and character n-grams in no order, beside all else, and have no hidden layer.

    Joulin et al. (2017), "Bag of tricks for efficient text classification": the vectors of the
    words are learned as well, so that those which speak for the same class come to lie together.
    """

    def __init__(self, spec: Spec, rngs: nnx.Rngs) -> None:
        self.head = Perceptron(spec, flat_width(spec), (), rngs)

    def __call__(self, seen: Seen) -> Features:
        """Return the features f32[K, F] of rows."""
        return self.head(flat(seen))
