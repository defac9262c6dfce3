"""Detectors of drift: folds that watch one number and raise an alarm with evidence."""

from __future__ import annotations

from model.drift.adwin import make_adwin
from model.drift.alarm import Alarm, Observed
from model.drift.page_hinkley import make_page_hinkley

__all__ = ["Alarm", "Observed", "make_adwin", "make_page_hinkley"]
