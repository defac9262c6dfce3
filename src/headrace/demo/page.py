"""The page of the demo's tasks, served from a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.serve import server
from headrace.stream.serve.gate import LOOPBACK, Limits
from headrace.stream.serve.pages import make_page
from headrace.stream.serve.viewing import Viewing
from headrace.stream.task import Task

HOST = "127.0.0.1"


@contextmanager
def page_of(tasks: Sequence[Task], kafka: KafkaConnection) -> Iterator[str]:
    """Serve the page of some tasks at a port that is free; yield its address.

    No model is compiled for it: it needs their topics alone.
    """
    ended, ready = threading.Event(), threading.Event()
    app = make_page(
        {task.name: Viewing(task, kafka) for task in tasks}, Limits(hosts=LOOPBACK), ended.is_set
    )
    listening = server.listen(HOST, 0)
    thread = threading.Thread(
        target=server.run,
        args=(app, listening),
        kwargs={"tls": None, "stop": ended.is_set, "on_ready": ready.set},
        name="page",
        daemon=True,
    )
    thread.start()
    ready.wait(10.0)
    try:
        yield f"http://{HOST}:{listening.getsockname()[1]}"
    finally:
        ended.set()
        thread.join(5.0)
