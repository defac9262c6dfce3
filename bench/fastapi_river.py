# /// script
# requires-python = ">=3.11"
# dependencies = ["fastapi>=0.120", "httptools", "river>=0.23", "uvicorn>=0.38", "uvloop"]
# ///
"""River's logistic regression in a FastAPI handler, in an environment of its own.

Usage: EVENTS PORT: learns the events of a file, one JSON object a line, then answers at the port.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from river import linear_model, preprocessing


def main(path: str, port: int) -> None:
    """Learn, then serve until the process ends."""
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            model.learn_one(event["features"], event["label"])
    app = FastAPI()

    def answer(event: dict[str, Any]) -> dict[str, Any]:
        return {"id": event["id"], "probability": model.predict_proba_one(event["features"]).get(1)}

    @app.post("/predict")  # type: ignore[untyped-decorator]
    async def predict(request: Request) -> Any:
        asked = await request.json()
        return list(map(answer, asked)) if isinstance(asked, list) else answer(asked)

    config = uvicorn.Config(app, port=port, log_level="error", access_log=False)
    uvicorn.Server(config).run()


main(sys.argv[1], int(sys.argv[2]))
