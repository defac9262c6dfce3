"""The members of the pool that are no networks: pure functions over a state of their own.

A new one is a file here and a line in MEMBERS: a `Member`, or what `by_row` makes of functions of a
row. One from elsewhere is registered, and belongs to the pool of each spec that names it.
"""

from __future__ import annotations

from typing import Any

from headrace.model.members import autoregression, median, neighbours, pairs, persistence, words
from headrace.model.members.member import Asked, Closing, Labels, Member, by_row
from headrace.model.registry import Registry
from headrace.model.spec import Spec

__all__ = [
    "MEMBERS",
    "Asked",
    "Closing",
    "Labels",
    "Member",
    "by_row",
    "init",
    "of",
    "register",
    "resetting",
    "speaking",
]

MEMBERS: Registry[Member] = Registry(
    "member",
    Member,
    "a headrace.model.members.Member",
    {
        "words": words.MEMBER,
        "cells": pairs.MEMBER,
        "followed": persistence.MEMBER,
        "steps": autoregression.MEMBER,
        "neighbours": neighbours.MEMBER,
        "middle": median.MEMBER,
    },
)
"""By the name of their state, in the order of their opinions."""

OWN = MEMBERS.own  # in every pool

register = MEMBERS.register


def of(spec: Spec) -> dict[str, Member]:
    """Return the members whose states are kept, by name.

    Raises:
        ValueError: the spec names one that is not registered, or one that is there anyway.
    """
    for name in spec.members:
        if name not in MEMBERS or name in OWN:
            raise ValueError(f"member {name!r}: expected one of {sorted({*MEMBERS} - {*OWN})}")
    return {name: MEMBERS[name] for name in (*OWN, *spec.members)}


def speaking(spec: Spec) -> dict[str, Member]:
    """Return the members that have opinions, in the order of these: last, those heard alone."""
    found = [(name, member) for name, member in of(spec).items() if member.names(spec)]
    return dict(sorted(found, key=lambda each: each[1].alone))


def resetting(spec: Spec) -> dict[str, Member]:
    """Return those that begin anew when they are lost."""
    return {name: member for name, member in speaking(spec).items() if member.resets}


def init(spec: Spec) -> dict[str, Any]:
    """Make the states of all members."""
    return {name: member.init(spec) for name, member in of(spec).items()}
