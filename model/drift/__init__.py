"""Detectors of drift: folds that watch one number; `shift` says which inputs moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.model.drift.adwin import make_adwin
from headrace.model.drift.alarm import Alarm, Observed
from headrace.model.drift.ddm import make_ddm
from headrace.model.drift.eddm import make_eddm
from headrace.model.drift.hddm import make_hddm_a, make_hddm_w
from headrace.model.drift.kswin import make_kswin
from headrace.model.drift.page_hinkley import make_page_hinkley
from headrace.model.fold import Fold
from headrace.model.registry import Registry
from headrace.model.spec import Spec

__all__ = [
    "DETECTORS",
    "Alarm",
    "Observed",
    "make_adwin",
    "make_ddm",
    "make_eddm",
    "make_hddm_a",
    "make_hddm_w",
    "make_kswin",
    "make_page_hinkley",
    "register",
]

DETECTORS: Registry[Callable[[Spec], Fold[Any, Observed, Alarm]]] = Registry(
    "detector",
    Callable,
    "a function of a Spec",
    {
        "adwin": lambda spec: make_adwin(delta=spec.adwin_delta),
        "page_hinkley": lambda spec: make_page_hinkley(threshold=spec.page_hinkley_threshold),
        "ddm": lambda spec: make_ddm(),
        "eddm": lambda spec: make_eddm(),
        "hddm_a": lambda spec: make_hddm_a(),
        "hddm_w": lambda spec: make_hddm_w(),
        "kswin": lambda spec: make_kswin(),
    },
)
"""Make a detector by its name; those without a setting of their own as their authors say."""

register = DETECTORS.register
