# /// script
# requires-python = ">=3.11"
# dependencies = ["quixstreams==3.28.1", "river>=0.23"]
# ///
"""River's logistic regression in Quix Streams, in an environment of its own: it pins old clients.

Usage: BOOTSTRAP INPUT OUTPUT EVENTS at-least-once|exactly-once. Prints [events, seconds], timed
from the first event to the end of the run, when everything is flushed and committed.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any

from quixstreams import Application
from river import linear_model, preprocessing


def main(bootstrap: str, source: str, output: str, events: int, guarantee: Any) -> None:
    """Run the application over so many events."""
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    started_s = 0.0

    def predict_and_learn(event: dict[str, Any]) -> dict[str, Any]:
        nonlocal started_s
        started_s = started_s or time.perf_counter()
        row = event["features"]
        chance = model.predict_proba_one(row).get(1, 0.0)
        model.learn_one(row, event["label"])
        return {"id": event["id"], "probability": chance}

    application = Application(
        broker_address=bootstrap,
        consumer_group=f"bench-{uuid.uuid4().hex[:8]}",
        auto_offset_reset="earliest",
        auto_create_topics=False,
        use_changelog_topics=False,
        processing_guarantee=guarantee,
        loglevel="ERROR",
    )
    frame = application.dataframe(application.topic(source, value_deserializer="json"))
    frame = frame.apply(predict_and_learn)
    frame = frame.to_topic(application.topic(output, value_serializer="json"))
    application.run(count=events, timeout=60.0)
    sys.stdout.write(json.dumps([events, time.perf_counter() - started_s]) + "\n")


main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
