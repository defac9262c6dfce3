"""Online learning on live Kafka streams: predict, be scored, learn at once.

    import headrace

    task = headrace.infer("power.csv", target="price")
    learner = headrace.Learner(task)
    for event in events:
        prediction = learner.predict_one(event)
        learner.learn_one(event)

`headrace.stream` moves events exactly once, `headrace.model` learns, `headrace.producers` sends
events of real and drawn streams; `headrace.cli` is the command line, `headrace.demo` its show.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.client import Client
    from headrace.learner import Learner
    from headrace.predictions import Prediction
    from headrace.service import Service
    from headrace.stream.errors import EventError, HeadraceError
    from headrace.stream.evaluation.evaluate import evaluate
    from headrace.stream.evaluation.evaluation import Evaluation
    from headrace.stream.evaluation.infer import infer_file as infer
    from headrace.stream.evaluation.infer import to_toml
    from headrace.stream.kafka.connection import KafkaConnection
    from headrace.stream.task import Task

__all__ = [
    "Client",
    "Evaluation",
    "EventError",
    "HeadraceError",
    "KafkaConnection",
    "Learner",
    "Prediction",
    "Service",
    "Task",
    "evaluate",
    "infer",
    "to_toml",
]

_PLACES = {
    "Client": "client",
    "Evaluation": "stream.evaluation.evaluation",
    "EventError": "stream.errors",
    "HeadraceError": "stream.errors",
    "KafkaConnection": "stream.kafka.connection",
    "Learner": "learner",
    "Prediction": "predictions",
    "Service": "service",
    "Task": "stream.task",
    "evaluate": "stream.evaluation.evaluate",
    "infer": "stream.evaluation.infer:infer_file",
    "to_toml": "stream.evaluation.infer",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, late: JAX alone takes more than a second."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, own = _PLACES[name].partition(":")
    found = getattr(import_module(f"{__name__}.{module}"), own or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
