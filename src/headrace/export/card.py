"""The model card: what an exported predictor is, what it was learned from, and how good it was.

After Mitchell et al. (2019), "Model cards for model reporting".
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from headrace.export.network import heaviest
from headrace.export.signature import TensorSpec, inputs, outputs
from headrace.model.networks.seen import flat_width
from headrace.stream.evaluation.infer import to_toml
from headrace.stream.evaluation.scores import score_cells
from headrace.stream.process.terminal import visible
from headrace.stream.task import Task
from headrace.stream.task.features import Category, Text
from headrace.stream.training.asking import Frozen
from headrace.stream.training.snapshot import digest
from headrace.stream.training.trainer import Trainer


@dataclass(frozen=True)
class Card:
    """Hold what there is to say of an exported predictor.

    Attributes:
        format, reader: what the file is, and what reads it.
        task: its text, as TOML.
        origin: where the learner comes from, by what it is called.
        labels: how many were learned.
        state: the digest of what was learned.
        metrics: of all events and of the newest, with baselines, when they came.
        inputs, outputs: arrays, in their order.
        classes: in the order of the probabilities; empty for numbers.
        limits: what it does not do.
        licence: as whoever exported it says.
    """

    format: str
    reader: str
    name: str
    task: str
    origin: dict[str, str]
    labels: int
    state: str
    metrics: dict[str, Any]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    classes: list[str]
    limits: list[str]
    licence: str

    def notes(self) -> dict[str, str]:
        """Return what stands in the file itself, where its format has a place for it."""
        about = msgspec.json.encode(asdict(self)).decode()
        return {"headrace": about, "classes": msgspec.json.encode(self.classes).decode()}

    def as_markdown(self) -> str:
        """Return it for people; what strangers named stays within its line and its cell."""
        lines = [f"# {self.name}", ""]
        lines += [f"A predictor by headrace, for {self.reader}.", "", "## What it learned from", ""]
        lines += [f"- {what}: {visible(value, keep='')}" for what, value in self.origin.items()]
        lines += [f"- labels learned: {self.labels:,}", f"- digest of the state: `{self.state}`"]
        lines += ["", "## How good it was", ""]
        lines += ["Each event was predicted before its label was known."] if self.labels else []
        lines += ["", *_table(score_cells({"headrace": self.metrics} | self.metrics["baselines"]))]
        for title, arrays in (("What it takes", self.inputs), ("What it gives", self.outputs)):
            lines += ["", f"## {title}", "", "Arrays with a line for each row.", ""]
            head = ["name", "type", "shape", "meaning"]
            rows = [
                [_code(each["name"]), each["dtype"], str(["n", *each["shape"]]), each["meaning"]]
                for each in arrays
            ]
            lines += _table([head, *rows])
        if self.classes:
            lines += ["", f"The classes, in their order: {', '.join(map(_code, self.classes))}."]
        lines += ["", "## What it does not do", "", *(f"- {limit}" for limit in self.limits)]
        lines += ["", "## Licence", "", self.licence or "None was stated.", ""]
        fence = "`" * (_longest_ticks(self.task, 2) + 1)
        lines += ["## The task", "", f"{fence}toml", visible(self.task.strip()), fence, ""]
        return "\n".join(lines)


def make_card(
    trainer: Trainer,
    frozen: Frozen,
    format: str,
    reader: str,
    whole: bool,
    origin: dict[str, str],
    licence: str,
) -> Card:
    """Make the card of a learner as it stands.

    Args:
        frozen: what it would predict by.
        whole: whether the file is the predictor, or one network of its pool.
    """
    task, classes = frozen.task, [*frozen.classes]
    taken, given, limits = inputs(task), outputs(task, classes), _limits(task, format)
    if not whole:
        _, name, weight = heaviest(task.spec, frozen.state)
        width = frozen.state.champion.params.last.shape[-2]
        taken = [TensorSpec("inputs", "float32", (flat_width(task.spec),), "of `headrace.weights`")]
        given = [TensorSpec("outputs", "float32", (width,), "logits, or deviations of the number")]
        limits = [
            f"It is one network of the pool, {name!r}, the one that weighs most: {weight:.2f} of "
            "all. It is not the predictor, which is a mixture of the pool, and sees standardised "
            "inputs: `headrace.weights.examples` makes them."
        ]
        if task.spec.sampled:
            at, share = task.spec.sampled
            limits.append(
                f"It learned a share of {share:g} of the events labelled {classes[at]!r}: the odds "
                "of this class are to be divided by that, which headrace does."
            )
    return Card(
        format=format,
        reader=reader,
        name=task.name,
        task=to_toml(task),
        origin=origin,
        labels=trainer.learned,
        state=digest(trainer.snapshot().tensors()),
        metrics=trainer.report(),
        inputs=[each._asdict() for each in taken],
        outputs=[each._asdict() for each in given],
        classes=classes if task.spec.classes else [],
        limits=limits,
        licence=visible(licence),
    )


def _limits(task: Task, format: str) -> list[str]:
    spec = task.spec
    found = ["It learns nothing: it is what was known at that moment."]
    if spec.neighbours:
        found.append(
            f"It holds rows that it learned from, standardised: the newest {spec.neighbours:,}, "
            "whose labels are votes. Give it away only where these may go."
        )
    if spec.entities:
        found.append(
            "It knows entities as they were at that moment: their last labels and rows do not move "
            "on as events come."
        )
    if spec.chunk > 1 and format != "stablehlo":
        found.append(f"What the last {spec.chunk - 1} events at most taught is not in it.")
    if spec.horizon and format != "stablehlo":
        found.append(
            "The label that an event brings is known as the entity's last one, but is not learned "
            "before the event is predicted, which headrace does: predictions are those of before "
            "that step of training. Only stablehlo takes it."
        )
    elif task.target.horizon and not spec.horizon:
        found.append(
            "The label that an event brings is not looked at, which headrace learns before the "
            "event is predicted: predictions are those of before it."
        )
    if task.of_kind(Category) or task.of_kind(Text) or spec.entities:
        found.append(
            "Categories, texts and entities come as keyed hashes: `headrace.Learner.arrays`, or "
            "the page on export says how they are made. Who has the key of the task's hashes can "
            "make them."
        )
    if format == "tflite":
        found.append("Numbers are of 32 bits.")
    return found


def _code(text: str) -> str:
    """Return a name as Markdown's code, whatever is in it."""
    ticks, pad = "`" * (_longest_ticks(text) + 1), " " if "`" in text else ""
    return f"{ticks}{pad}{visible(text, keep='')}{pad}{ticks}"


def _longest_ticks(text: str, least: int = 0) -> int:
    return max([least, *map(len, re.findall("`+", text))])


def _table(lines: list[list[str]]) -> list[str]:
    head, *body = lines
    rows = [head, ["---"] * len(head), *body]
    cells = ([cell.replace("|", r"\|") for cell in row] for row in rows)
    return [f"| {' | '.join(row)} |" for row in cells]
