"""Print, as JSON, what PyTorch's own loader gives of a task's topic and of its archive."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch.utils.data import DataLoader

import headrace
from headrace.torch import ArchiveDataset, TopicDataset


def main(task: str, servers: str, place: str) -> None:
    kafka = headrace.KafkaConnection(servers)
    told: dict[str, Any] = {}
    for workers in (0, 2, 5):
        for name in ("topic", "archive", "batched"):
            whole = 64 if name == "batched" else None
            dataset = ArchiveDataset(task, place, batch_size=whole)
            if name == "topic":
                dataset = TopicDataset(task, kafka)
            rows = None if whole else 64
            batches = [*DataLoader(dataset, batch_size=rows, num_workers=workers)]
            told[f"{name} {workers}"] = {
                "rejected": dataset.rejected,
                "shapes": {key: [*value.shape] for key, value in batches[0].items()},
                "types": {key: str(value.dtype) for key, value in batches[0].items()},
                "rows": {
                    key: torch.cat([batch[key] for batch in batches]).tolist()
                    for key in ("offset", "partition", "label", "numeric")
                },
            }
    spawned = DataLoader(
        TopicDataset(task, kafka), batch_size=64, num_workers=2, multiprocessing_context="spawn"
    )
    told["spawned"] = sorted(
        [p, at]
        for batch in spawned
        for p, at in zip(batch["partition"].tolist(), batch["offset"].tolist(), strict=True)
    )
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
