"""Events of an archived topic for TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from headrace.datasets import ArchivedEvents, Point, RowReader
from headrace.stream.events import DeadLetter
from headrace.stream.task import Task

try:
    import tensorflow as tf
except ImportError as error:
    raise ImportError(
        f"headrace.tensorflow needs TensorFlow (`pip install tensorflow`): {error}"
    ) from error


def archive_dataset(
    task: Task | str | Path,
    place: str | Path,
    *,
    start: Point | None = None,
    stop: Point | None = None,
    on_rejected: Callable[[list[DeadLetter]], None] = lambda letters: None,
) -> tf.data.Dataset:
    """Return the rows of a task's events in an archive, a dictionary of tensors for each event.

    The rows, and their order, are those of `headrace.torch.ArchiveDataset`: what the service's
    normaliser makes of the events.

    Args:
        task: a task, or the path of its file.
        place: where `headrace archive` wrote: a directory, or a URL that fsspec knows.
        start: where to begin: the first offset, by partition, or a time (RFC 3339; UTC unless it
            says otherwise): each partition's first record with that timestamp of Kafka's or a
            later one; default: the first there is.
        stop: where to end: the offset after the last one, by partition, or a time: before what
            would begin there; default: the end as it is now.
        on_rejected: called with the dead letters of events that are left out as the normaliser
            refuses them, in every pass.

    Raises:
        TaskError: the task file is wrong.
        UsageError: an offset is not there, a time is none, or the task names no classes.
        HistoryError: there is no archive of the topic, or it is damaged.
    """
    reader = RowReader(task, partial(ArchivedEvents, str(place)), start=start, stop=stop)
    signature = {
        name: tf.TensorSpec((None, *field.shape), tf.as_dtype(field.dtype))
        for name, field in reader.fields.items()
    }
    batches = tf.data.Dataset.from_generator(
        partial(reader.batches, on_rejected=on_rejected), output_signature=signature
    )
    return batches.unbatch()
