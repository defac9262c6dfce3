"""What functions of JAX become in ONNX: convolutions and pooling, and how a division rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from jax import Array, lax
from numpy.typing import NDArray

from headrace.export.onnx import to_onnx
from headrace.model.members.neighbours import _least

DRAWN = np.random.default_rng(0)
LAST = ("NHWC", "HWIO", "NHWC")
Function = Callable[[Array], Array]


def _kernel(*shape: int) -> Array:
    return jnp.asarray(DRAWN.normal(size=shape), jnp.float32)


def _convolve(kernel: Array, *settings: Any, **named: Any) -> Function:
    return lambda rows: lax.conv_general_dilated(rows, kernel, *settings, **named)


def _fold(start: float, fold: Any, *settings: Any, **named: Any) -> Function:
    return lambda rows: lax.reduce_window(rows, start, fold, *settings, **named)


def _by_network(kernels: Array) -> Function:
    """Convolve each row by the kernels of several networks, each of which sees its own."""
    scales = jnp.arange(1.0, len(kernels) + 1)

    def one(row: Array, kernel: Array, by: Array) -> Array:
        return _convolve(kernel, (1, 1), "SAME", dimension_numbers=LAST)(by * row[None])

    each = jax.vmap(one, (None, 0, 0))
    return lambda rows: jax.vmap(each, (0, None, None))(rows, kernels, scales)


FUNCTIONS: dict[str, tuple[Function, tuple[int, ...]]] = {
    "strides, same": (
        _convolve(_kernel(3, 2, 3, 8), (2, 1), "SAME", dimension_numbers=LAST),
        (5, 4, 3),
    ),
    "dilated groups": (
        _convolve(
            *(_kernel(2, 2, 3, 8), (1, 1), "VALID"),
            rhs_dilation=(2, 1),
            dimension_numbers=LAST,
            feature_group_count=2,
        ),
        (5, 4, 6),
    ),
    "transposed": (
        _convolve(
            *(_kernel(3, 3, 3, 2), (1, 1), [(2, 1), (1, 1)]),
            lhs_dilation=(2, 3),
            dimension_numbers=LAST,
        ),
        (5, 4, 3),
    ),
    "along one axis, channels first": (_convolve(_kernel(7, 3, 2), (3,), [(0, 1)]), (3, 9)),
    "along three axes": (_convolve(_kernel(2, 3, 2, 2, 1), (1, 2, 1), "SAME"), (3, 3, 4, 2)),
    "by network": (_by_network(_kernel(2, 2, 3, 3, 4)), (5, 4, 3)),
    "greatest": (_fold(-np.inf, lax.max, (1, 3, 2, 1), (1, 2, 2, 1), "SAME"), (5, 4, 6)),
    "greatest, dilated": (
        _fold(-np.inf, lax.max, (1, 2, 1), (1, 1, 1), "VALID", window_dilation=(1, 3, 1)),
        (7, 2),
    ),
    "sum": (_fold(0.0, lax.add, (1, 3, 2, 1), (1, 1, 2, 1), "SAME"), (5, 4, 6)),
    "sum of channels, too": (_fold(0.0, lax.add, (1, 2, 2), (1, 2, 2), "VALID"), (6, 4)),
    "numbers put between": (
        lambda rows: lax.pad(rows, jnp.float32(7), [(0, 0, 0), (1, 2, 0), (0, 1, 2)]),
        (5, 4),
    ),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_model_of_onnx_does_what_jax_does(kind: str) -> None:
    function, shape = FUNCTIONS[kind]
    drawn = DRAWN.normal(size=(3, *shape)).astype(np.float32)
    said = _by_onnxruntime(function, drawn)
    np.testing.assert_allclose(said, function(jnp.asarray(drawn)), rtol=1e-5, atol=1e-5)


def _model(function: Function, *shape: int) -> onnx.ModelProto:
    (rows,) = jax.export.symbolic_shape("n")
    given = jax.ShapeDtypeStruct((rows, *shape), np.float32)  # type: ignore[no-untyped-call]
    return to_onnx(lambda rows: [function(rows)], [("rows", given)], ["said"], {})


def _by_onnxruntime(function: Function, drawn: NDArray[np.float32]) -> NDArray[np.float32]:
    made = _model(function, *drawn.shape[1:])
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"rows": drawn})[0])


def test_a_division_rounds_as_the_learner_does() -> None:
    rows = DRAWN.normal(size=(1000, 3)).astype(np.float32)
    state = np.array([0.1, 3.0, 7.7], np.float32)  # which a learner's program does not know
    said = _by_onnxruntime(lambda rows: rows / state, rows)
    each = jax.jit(lambda rows, state: lax.map(lambda row: row / state, rows))
    np.testing.assert_array_equal(said, each(rows, state))
    said = _by_onnxruntime(lambda rows: rows / 9.0, rows)
    np.testing.assert_array_equal(said, jax.jit(lambda rows: rows / 9.0)(rows))


def test_what_runtimes_cannot_is_refused() -> None:
    given = jax.ShapeDtypeStruct((2, 4, 6), np.float32)  # type: ignore[no-untyped-call]
    dilated = _fold(0.0, lax.add, (1, 2, 1), (1, 1, 1), "VALID", window_dilation=(1, 2, 1))
    with pytest.raises(NotImplementedError, match="sum of windows"):
        to_onnx(lambda rows: [dilated(rows)], [("rows", given)], ["said"], {})


@pytest.mark.parametrize("size", [2, 3, 97, 128])
def test_neighbours_are_weighed_in_few_passes(size: int) -> None:
    columns = DRAWN.normal(size=(4, size)).astype(np.float32)
    squares = jnp.arange(size, dtype=jnp.float32) / size

    def weigh(rows: Array) -> Array:
        def one(row: Array) -> Array:
            apart: Array = squares + jnp.square(row).sum() - row @ columns
            kernel = 1.0 - (apart - _least(apart)) / 3.0
            return jnp.where(kernel > 0.0, kernel, 0.0)

        weights: Array = jax.vmap(one)(rows)
        return weights

    drawn = DRAWN.normal(size=(50, 4)).astype(np.float32)
    apart = squares + np.square(drawn).sum(1, keepdims=True) - drawn @ columns
    expected = np.clip(1.0 - (apart - apart.min(1, keepdims=True)) / 3.0, 0.0, None)
    np.testing.assert_allclose(_by_onnxruntime(weigh, drawn), expected, rtol=1e-5, atol=1e-5)
    if size > 2:
        kinds = [node.op_type for node in _model(weigh, 4).graph.node]
        assert {"Gemm", "ReduceMin", "HardSigmoid"} <= {*kinds} and not {"Min", "Max"} & {*kinds}
