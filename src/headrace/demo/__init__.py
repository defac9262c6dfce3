"""`headrace demo`: all of it on one machine, on the screen, accounted for to the last event."""

from headrace.demo.session import run

__all__ = ["run"]
