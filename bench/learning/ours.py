"""Headrace in a process of its own: `python -m bench.learning.ours REQUEST`.

It runs what `headrace evaluate` runs, with a task that has no setting of any model: what the core
learns better tomorrow is measured without a change here.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.learning import environment
from bench.learning.prepare import Prepared
from bench.peers.score import score


def code() -> str:
    """Name headrace's version, by the code between an event and a prediction."""
    from headrace.stream.ledger import fingerprint

    code = fingerprint.of_code("headrace.stream.evaluation.evaluate")
    return f"{version('headrace')}+{code[:12]}"


def run(
    prepared: Prepared,
    rows: int,
    *,
    image: bool = False,
    label_delay: int = 0,
    limit_s: float | None = None,
) -> dict[str, Any]:
    """Evaluate a stream in a new process, with its columns as one `image` if wished.

    Raises:
        PeerError: it failed.
    """
    request: dict[str, Any] = {"task": prepared.task(image=image), "rows": rows}
    request |= {"path": str(prepared.path), "pixels": list(prepared.about["features"]) * image}
    request["label_delay"] = label_delay
    request["f1"] = prepared.stream.metric == "f1"
    command = [sys.executable, "-m", "bench.learning.ours", json.dumps(request)]
    said = environment.output(command, "headrace", limit_s=limit_s)
    found: dict[str, Any] = json.loads(said)
    return found


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Evaluate in this process, in the peers' terms.

    Raises:
        ValueError: a row was refused, so the peers were scored on others.
    """
    from headrace.stream.evaluation.evaluate import evaluate
    from headrace.stream.task import validate

    task, path = validate(request["task"], "bench"), Path(request["path"])
    with TemporaryDirectory() as place:
        if request["pixels"]:
            path = with_images(path, request["pixels"], Path(place) / path.name)
        delay, trace = request["label_delay"], Path(place) / "trace.parquet"
        late: dict[str, Any] = {"label_delay": str(delay), "trace": trace} if delay else {}
        found = evaluate(task, path, limit=request["rows"], **late)
        if found.rejected:
            raise ValueError(f"{found.rejected} rows refused: {found.codes}")
        metrics = _scored_from(delay, trace, task.target.classes or ()) if delay else {}
    whole = found.metrics["all"]
    metrics = metrics or {n: whole[n] for n in ("accuracy", "mae", "rmse") if n in whole}
    if request["f1"] and not delay:
        positives = _count(Path(request["path"]), request["rows"], task.target.classes[-1])
        scores = whole["accuracy"], whole["macro_f1"]
        metrics["f1"] = f1_of_last(int(whole["events"]), positives, *scores)
    return {"metrics": metrics, "events": found.events, "seconds": found.seconds}


def _scored_from(first: int, trace: Path, classes: tuple[str, ...]) -> dict[str, float]:
    """Score the rows of a trace from one on, as the peers' are."""
    import pyarrow.parquet

    columns = pyarrow.parquet.read_table(trace, columns=["label", "prediction"]).slice(first)
    return score(classes, columns["label"].to_pylist(), columns["prediction"].to_pylist())


def with_images(rows: Path, columns: list[str], to: Path) -> Path:
    """Write rows whose columns have become one image, a byte for each pixel; give where."""
    with rows.open("rb") as lines, to.open("w", encoding="utf-8") as file:
        for row in map(json.loads, lines):
            image = b64encode(bytes(row[name] for name in columns)).decode()
            file.write(json.dumps({"image": image, "target": row["target"]}) + "\n")
    return to


def f1_of_last(events: int, positives: int, accuracy: float, macro_f1: float) -> float:
    """Find the F1 of the second of two classes from what `evaluate` reports.

    With the errors known, the macro F1 says how many positives were hit, if they are few.

    Example:
        >>> f1_of_last(100, 10, .94, (2 * 88 / (2 * 88 + 6) + 2 * 6 / (2 * 6 + 6)) / 2)
        0.6666666666666666
    """
    errors = round(events * (1 - accuracy))

    def f1(hits: int) -> float:
        return 2 * hits / (2 * hits + errors) if hits + errors else 0.0

    def gap(hits: int) -> float:
        return abs((f1(hits) + f1(events - errors - hits)) / 2 - macro_f1)

    least, most = max(0, positives - errors), min(positives, events - errors)
    return f1(min(range(least, most + 1), key=gap))


def _count(path: Path, rows: int, label: str) -> int:
    with path.open("rb") as lines:
        return sum(
            json.loads(line)["target"] == label for _, line in zip(range(rows), lines, strict=False)
        )


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(measure(json.loads(sys.argv[1]))) + "\n")
