"""The signals that ask a command to end."""

from __future__ import annotations

import signal

_HANGUP = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)

ENDING = (signal.SIGINT, signal.SIGTERM, *_HANGUP)
"""Ctrl-C, what supervisors send, and a terminal that goes away, but under `nohup`."""
