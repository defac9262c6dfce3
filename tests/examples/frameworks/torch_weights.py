"""Print, as JSON, how PyTorch's module of a network compares with what a learner says by it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import headrace
from headrace.torch import examples, load_into, module_of


def main(learned: str, events: str, home: str) -> None:
    table = json.loads(Path(events).read_text())
    told: dict[str, Any] = {"outputs": [], "after": []}
    learner = headrace.Learner.load(learned)
    for network in range(learner.task.spec.networks):
        inputs, added, _ = examples(learner, table, network)
        told["outputs"].append((module_of(learner, network)(inputs) + added).tolist())
    module = module_of(learner, 0)  # trained here, beside the learner
    inputs, added, goals = examples(learner, table, 0)
    optimizer, losses = torch.optim.Adam(module.parameters(), 0.01), []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(module(inputs) + added, goals.long())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    told["losses"] = losses
    save_file(module.state_dict(), f"{home}/module.safetensors")
    load_into(learner, f"{home}/module.safetensors", 0)
    load_into(learner, module, learner.task.spec.networks - 1)
    for network in (0, learner.task.spec.networks - 1):
        told["after"].append((module_of(learner, network)(inputs) + added).tolist())
    told["trained"] = (module(inputs) + added).tolist()
    learner.save(f"{home}/started.hr")
    told["refused"] = []
    torch.save(module.state_dict(), f"{home}/module.pt")  # a pickle
    for wrong in (f"{home}/module.pt", f"{home}/none", torch.nn.Linear(2, 2)):
        try:
            load_into(learner, wrong)
        except headrace.HeadraceError as error:
            told["refused"].append(str(error))
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
