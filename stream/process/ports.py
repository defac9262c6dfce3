"""Ports of this machine's loopback."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether nobody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port(*, besides: int = 0) -> int:
    """Find a port that nobody listens on."""
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            number: int = probe.getsockname()[1]
        if number != besides:
            return number
