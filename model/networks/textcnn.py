"""Convolutions over the words of a text, in their order."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from headrace.model.networks.cnn1d import slide
from headrace.model.networks.perceptron import Features, Perceptron, activate, dense, gain, with_one
from headrace.model.networks.seen import Seen
from headrace.model.spec import Spec

WIDTHS = (2, 3, 4)  # words that a filter sees at a time
LEAST = -1.0  # no activation gives less


class TextCnn(nnx.Module):
    """See phrases: what a filter finds counts once, wherever in the text it stands.

    Kim (2014), "Convolutional neural networks for sentence classification": filters of several
    widths over the vectors of consecutive words, as many of each as the first of the hidden
    widths, and the strongest answer of each; dense layers of the other widths see these beside
    numbers and categories. Character n-grams speak through the words' own regression only.
    """

    def __init__(self, spec: Spec, rngs: nnx.Rngs) -> None:
        self.spec = spec
        filters, *hidden = spec.hidden
        self.filters = nnx.List(
            dense(width * spec.embedding, filters, gain(spec), rngs) for width in WIDTHS
        )
        beside = spec.inputs + spec.single_ids * spec.embedding
        self.head = Perceptron(spec, len(WIDTHS) * filters + beside, tuple(hidden), rngs)

    def __call__(self, seen: Seen) -> Features:
        """Return the features f32[K, F] of rows."""
        found = [
            self.strongest(layer, width, seen)
            for layer, width in zip(self.filters, WIDTHS, strict=True)
        ]
        return self.head(jnp.concatenate([*found, seen.dense, seen.embedded.single], 1))

    def strongest(self, layer: nnx.Linear, width: int, seen: Seen) -> Array:
        """Return each filter's strongest answer f32[K, filters]; LEAST where there are no words.

        A filter looks from each word on; past the end of its text it sees zeros.
        """
        texts = jnp.split(seen.embedded.words, np.cumsum(self.spec.words)[:-1].tolist(), 1)
        after = ((0, 0), (0, width - 1), (0, 0))
        phrases = jnp.concatenate([slide(jnp.pad(text, after), width) for text in texts], 1)
        answers = activate(self.spec, layer(with_one(phrases)))
        return answers.max(1, where=seen.embedded.spoken[..., None], initial=LEAST)
