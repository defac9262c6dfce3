"""How fast an exported predictor is: a model of ONNX on one core, beside `Learner.predict`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime

import headrace
from bench.learning.table import markdown
from headrace.stream.evaluation.infer import infer_file

LEARNED = 5_000
ROWS = (1, 64, 256, 1024)  # of a call
SECONDS = 1.0  # that each is called for
_HEAD = ["rows a call", "onnxruntime, rows/s", "Learner.predict, rows/s", "largest difference"]


def exported(
    source: Path, target: str, on_progress: Callable[[str], None] = lambda note: None
) -> dict[str, Any]:
    """Learn the first LEARNED rows of a file by an inferred task, and ask about the next ones.

    Returns:
        `nodes` of the model, and by rows a call: `onnx` and `headrace`, rows a second of CPU time,
        and `apart`, the largest difference between the two: of probabilities, or in deviations of
        what is predicted.
    """
    import pandas as pd

    task = infer_file(source, target)
    frame = pd.read_csv(source, nrows=LEARNED + max(ROWS))
    learner = headrace.Learner(task)
    learner.predict_then_learn(frame[:LEARNED])
    found: dict[str, Any] = {}
    with TemporaryDirectory() as place:
        path = Path(place) / "model.onnx"
        learner.export(path)
        found["nodes"] = len(onnx.load(path).graph.node)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        for count in ROWS:
            asked = frame[LEARNED : LEARNED + count]
            arrays = learner.arrays(asked)
            found[str(count)] = told = {
                "onnx": count * _calls(partial(session.run, None, arrays)),
                "headrace": count * _calls(partial(learner.predict, asked)),
                "apart": _apart(learner.predict(asked), session.run(None, arrays), task),
            }
            on_progress(f"{count} rows a call: {told['onnx']:,.0f} rows/s of onnxruntime")
    return found


def table(found: dict[str, Any]) -> str:
    """Write what was found as Markdown."""
    lines = [
        [rows, f"{told['onnx']:,.0f}", f"{told['headrace']:,.0f}", f"{told['apart']:.1e}"]
        for rows, told in found.items()
        if rows != "nodes"
    ]
    return markdown(_HEAD, lines)


def _calls(call: Callable[[], Any]) -> float:
    """Return how often something can be done in a second of CPU time."""
    call()
    done, begun_s = 0, time.process_time()
    while (passed := time.process_time() - begun_s) < SECONDS:
        call()
        done += 1
    return done / passed


def _apart(said: Any, given: list[Any], task: headrace.Task) -> float:
    if not task.spec.classes:
        predicted = said["prediction"].to_numpy()
        return float(np.abs(predicted - given[0]).max() / (np.std(predicted) or 1.0))
    chances = np.array(said["probabilities"].to_pylist())[:, : given[1].shape[1]]
    return float(np.abs(chances - given[1]).max())
