# /// script
# requires-python = ">=3.11"
# dependencies = ["mlflow>=3.17", "river>=0.23"]
# ///
"""River's logistic regression in MLflow's model server, in an environment of its own.

Usage: EVENTS FOLDER PORT: learns the events of a file, one JSON object a line, saves the model to
the folder, and serves it at the port: POST /invocations {"dataframe_records": [...]}.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import mlflow
from river import linear_model, preprocessing


class River(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answer for each row by River's model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """Return the probability of label 1 of each row of a data frame."""
        rows = model_input.to_dict("records")
        return [self.model.predict_proba_one(row).get(1) for row in rows]


def main(path: str, folder: str, port: str) -> None:
    """Learn, save, then become the server."""
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            model.learn_one(event["features"], event["label"])
    mlflow.pyfunc.save_model(folder, python_model=River(model))
    options = ("--env-manager", "local", "--host", "127.0.0.1", "--port", port)
    os.execvp("mlflow", ["mlflow", "models", "serve", "--model-uri", folder, *options])


main(sys.argv[1], sys.argv[2], sys.argv[3])
