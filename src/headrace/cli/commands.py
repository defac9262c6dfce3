"""All commands, put together: the one place that knows producers and stream."""

from __future__ import annotations

from headrace.cli import archive, audit, cluster, export, offline, pipeline, replay, running

app = running.make_app("Online learning on live Kafka streams: predict, be scored, learn at once.")
for commands in (pipeline, offline, audit, replay, export, archive, cluster):
    commands.add_to(app)


def run() -> int:
    """Run the command that the arguments name, and give its exit code."""
    return running.run(app, "headrace")
