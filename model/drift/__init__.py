"""Detectors of drift: folds that watch one number; `shift` says which inputs moved."""

from __future__ import annotations

from headrace.model.drift.adwin import make_adwin
from headrace.model.drift.alarm import Alarm, Observed
from headrace.model.drift.ddm import make_ddm
from headrace.model.drift.eddm import make_eddm
from headrace.model.drift.hddm import make_hddm_a, make_hddm_w
from headrace.model.drift.kswin import make_kswin
from headrace.model.drift.page_hinkley import make_page_hinkley

__all__ = [
    "Alarm",
    "Observed",
    "make_adwin",
    "make_ddm",
    "make_eddm",
    "make_hddm_a",
    "make_hddm_w",
    "make_kswin",
    "make_page_hinkley",
]
