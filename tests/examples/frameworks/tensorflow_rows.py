"""Print, as JSON, what TensorFlow gives of a task's archive."""

from __future__ import annotations

import json
import sys
from typing import Any

import tensorflow as tf

from headrace.tensorflow import archive_dataset


def main(task: str, place: str) -> None:
    letters: list[Any] = []
    dataset = archive_dataset(task, place, on_rejected=letters.extend)
    rows = [*dataset.as_numpy_iterator()]
    rejected = len(letters)
    batch = next(iter(dataset.batch(64)))
    told = {
        "spec": {
            key: [each.dtype.name, each.shape.as_list()]
            for key, each in dataset.element_spec.items()
        },
        "rejected": rejected,
        "rows": {
            key: [row[key].tolist() for row in rows]
            for key in ("offset", "partition", "label", "numeric")
        },
        "batch": {key: value.shape.as_list() for key, value in batch.items()},
        "is_dataset": isinstance(dataset, tf.data.Dataset),
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
