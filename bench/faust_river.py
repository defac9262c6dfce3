"""A Faust application that learns with River, as its documentation would have one write it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import faust

from bench.loops import make_logistic
from bench.workload import PEERS
from headrace.stream.engines.credentials import settings_of
from headrace.stream.kafka.connection import KafkaConnection, connect
from headrace.stream.process import workers
from headrace.stream.task import load


def make_app(kafka: KafkaConnection, task: Path) -> faust.App:
    """Build it: JSON in, test then train, JSON out, one event after the other."""
    loaded = load(task)
    app = faust.App(
        f"river-{loaded.name}",
        **settings_of(kafka),
        consumer_auto_offset_reset="earliest",
        producer_linger=0.005,  # none by default, and then almost a request for each event
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        datadir=Path(tempfile.gettempdir(), "headrace-faust"),
    )
    predictions = app.topic(loaded.output(PEERS), value_serializer="json")
    model = make_logistic()

    async def learn(stream: Any) -> None:
        async for event in stream:
            chance = model.predict_proba_one(event["features"])[True]
            model.learn_one(event["features"], event["label"])
            await predictions.send(value={"id": event["id"], "probability": chance})

    app.agent(app.topic(loaded.input.topic, value_serializer="json"))(learn)
    return app


if __name__ == "__main__":
    import asyncio

    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    workers.on_end(lambda: os._exit(0))
    app = make_app(connect(), Path(sys.argv[1]))
    faust.Worker(app, loglevel="warning").execute_from_commandline()
