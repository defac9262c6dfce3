"""Producers: events into Kafka, from bundled streams, files and seeded generators."""

from __future__ import annotations

from collections.abc import Iterator

from headrace.producers import sources
from headrace.producers.generators import GENERATORS, Drift
from headrace.producers.sources import Event
from headrace.stream.errors import UsageError
from headrace.stream.formats import files

BUNDLED = {"sensor": sources.sensor, "social": sources.social, "text": sources.text}


def events_of(
    source: str,
    path: files.Given | None = None,
    *,
    loop: bool = False,
    seed: int = 0,
    drift: str | None = None,
    key: str | None = None,
    time: str | None = None,
    cloudevents: bool = False,
) -> Iterator[Event]:
    """Open a source of events by name: a bundled stream, `file` with paths, or a generator.

    Raises:
        UsageError: there is no such source, or it takes no such option.
    """
    if (source == "file") != (path is not None):
        raise UsageError(f"{source}: `file` needs a path, and nothing else takes one")
    if path is not None:
        return sources.file(path, key=key, time=time, loop=loop, cloudevents=cloudevents)
    if key or time:
        raise UsageError("--key and --time name columns of a file; other sources have their own")
    if source in BUNDLED:
        return BUNDLED[source](loop=loop, cloudevents=cloudevents)
    if source not in GENERATORS:
        known = ", ".join([*BUNDLED, "file", *GENERATORS])
        raise UsageError(f"{source}: no such source; there are {known}")
    events = GENERATORS[source](seed=seed, drift=Drift.parse(drift) if drift else None)
    return sources.as_cloudevents(events, source) if cloudevents else events
