"""What words and categories say by themselves: hashed logistic (or linear) regression.

Its weights stand in the table of `embed`, beside the vectors that networks see, and learn with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax import Array

from headrace.model import embed, losses
from headrace.model.members.member import Asked, Closing, Labels, Member
from headrace.model.mixture import opinion
from headrace.model.spec import Spec


def names(spec: Spec) -> list[str]:
    """Name the opinion, if rows have ids."""
    return ["words"] if spec.ids else []


def predict(
    spec: Spec, state: Any, asked: Sequence[Asked], labels: Labels
) -> tuple[list[Array], None]:
    """Return an opinion f32[1, K, O] about each lot of rows."""
    direct = [embed.features(spec, rows.found, rows.ids)[1] for rows in asked]
    return [opinion(spec, losses.around(spec, outputs))[None] for outputs in direct], None


def update(spec: Spec, state: Any, learned: None, closing: Closing) -> Any:
    """Keep nothing."""
    return state


MEMBER = Member(names, lambda spec: (), predict, update)
