"""All commands, put together: the one place that knows producers, stream and bench."""

from __future__ import annotations

import typer

from stream.cli import archive, audit, cluster, offline, pipeline, replay

app = typer.Typer(
    name="headrace",
    help="Online learning on live Kafka streams: predict, be scored, learn at once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (pipeline, offline, audit, replay, archive, cluster):
    commands.add_to(app)
