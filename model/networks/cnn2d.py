"""Two convolutions over the image, their answers pooled, before the dense layers."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from headrace.model.networks.perceptron import Features, Perceptron, activate, dense, gain, with_one
from headrace.model.networks.seen import Seen, flat, flat_width
from headrace.model.spec import Spec

CHANNELS = (8, 16)
SIDE = 3  # of the window that a convolution looks through


class Cnn2d(nnx.Module):
    """See the image through 3 x 3 windows, twice, halved after each; the rest beside it.

    As LeCun, Bottou, Bengio & Haffner (1998), "Gradient-based learning applied to document
    recognition", with maxima between the layers.
    """

    def __init__(self, spec: Spec, rngs: nnx.Rngs) -> None:
        self.spec = spec
        height, width, channels = spec.image
        kernels = []
        for out in CHANNELS:
            kernels.append(dense(SIDE * SIDE * channels, out, gain(spec), rngs))
            height, width, channels = -(-height // 2), -(-width // 2), out
        self.kernels = nnx.List(kernels)
        pooled = height * width * channels
        inputs = pooled + flat_width(spec) - spec.pixels
        self.head = Perceptron(spec, inputs, spec.hidden, rngs, pooled)

    def __call__(self, seen: Seen) -> Features:
        """Return the features f32[K, F] of rows."""
        rows, spec = flat(seen), self.spec
        image = rows[:, : spec.pixels].reshape(-1, *spec.image)
        for kernel in self.kernels:
            image = halved(activate(spec, kernel(with_one(windows(image)))))
        return self.head(jnp.concatenate([image.reshape(len(rows), -1), rows[:, spec.pixels :]], 1))


def windows(image: Array) -> Array:
    """Lay out what each pixel's window shows, f32[K, H, W, 9 * C], zeros beyond the border.

    So a convolution is one product of matrices: for small images and a row at a time several times
    faster on a CPU than XLA's own (Chellapilla, Puri & Simard 2006, "High performance
    convolutional neural networks for document processing").
    """
    _, height, width, _ = image.shape
    edge = SIDE // 2
    wide = jnp.pad(image, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    shifts = [(down, right) for down in range(SIDE) for right in range(SIDE)]
    shown = [wide[:, down : down + height, right : right + width] for down, right in shifts]
    return jnp.concatenate(shown, -1)


def halved(image: Array) -> Array:
    """Keep the largest of each 2 x 2 pixels of f32[K, H, W, C]; zeros fill up what is odd."""
    rows, height, width, channels = image.shape
    even = jnp.pad(image, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    blocks = even.reshape(rows, -(-height // 2), 2, -(-width // 2), 2, channels)
    return blocks.max((2, 4))
