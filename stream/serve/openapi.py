"""The description of the HTTP interface: OpenAPI 3.1, made from the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from headrace.stream.serve.assets import LAST_MS
from headrace.stream.serve.problems import MEDIA
from headrace.stream.task import Task


def document(tasks: Sequence[Task], *, secured: bool) -> dict[str, Any]:
    """Return the description of what is served.

    Args:
        secured: whether a token is asked for.
    """
    guarded: dict[str, Any] = {"security": [{"token": []}]} if secured else {}
    event, answer = {"type": "object"}, _ref("Answer")
    problems = {str(status): _problem() for status in _PROBLEMS}
    named = {
        "name": "task",
        "in": "path",
        "required": True,
        "description": "The task's name.",
        "schema": {"type": "string", "enum": [task.name for task in tasks]},
    }
    predict = {
        "operationId": "predict",
        "summary": "Predict one event, or many.",
        "description": "An object is answered by an object, an array by an array as long. An event "
        "is what would stand in the task's topic; it may lack an id, and its own label is not "
        "looked at. Of an array a refused event is answered by problem details in its place.",
        "parameters": [named],
        "requestBody": {
            "required": True,
            "content": _json({"oneOf": [event, {"type": "array", "items": event}]}),
        },
        "responses": {
            "200": _said(
                "What is predicted.",
                {
                    "oneOf": [
                        answer,
                        {"type": "array", "items": {"oneOf": [answer, _ref("Problem")]}},
                    ]
                },
            ),
            **problems,
        },
        **guarded,
    }
    why = "As predict, with what drove each prediction; of tasks that set model.explain."
    explain = predict | {
        "operationId": "explain",
        "summary": "Predict and explain one event, or up to 256.",
        "description": why,
    }
    described = {"operationId": "describe", "summary": "The task, and the state it is served by."}
    listed = {"operationId": "list", "summary": "All tasks that are served here."}
    views = {"operationId": "views", "summary": "What the page says first of each task."}
    at = {
        "name": "at",
        "in": "query",
        "description": "Milliseconds since 1970: as it was then; left out: as it is now.",
        "schema": {"type": "integer", "minimum": 0, "maximum": LAST_MS},
    }
    view = {
        "operationId": "view",
        "summary": "What the page shows of a task: the newest records of its topics.",
        "parameters": [named, at],
    }
    stream = {
        "operationId": "stream",
        "summary": "The view, then what changes, as server-sent events that go on for ever.",
        "description": "Each `view` event is a View whose `points` are those that came since.",
        "parameters": [named],
    }
    tasks_schema = {"type": "object", "required": ["tasks"]}
    paths: dict[str, Any] = {
        "/v1/tasks": {"get": _get(listed, tasks_schema, guarded)},
        "/v1/tasks/{task}": {
            "get": _get(described | {"parameters": [named]}, _ref("Standing"), guarded)
        },
        "/v1/tasks/{task}/predict": {"post": predict},
        "/v1/tasks/{task}/explain": {"post": explain},
        "/v1/views": {"get": _get(views, {"type": "object", "required": ["views"]}, guarded)},
        "/v1/tasks/{task}/view": {"get": _get(view, _ref("View"), guarded)},
        "/v1/tasks/{task}/stream": {"get": _streamed(stream, guarded)},
        "/healthz": {"get": _get({"operationId": "health", "summary": "It runs."}, {}, {})},
        "/readyz": {"get": _get({"operationId": "ready", "summary": "It can answer."}, {}, {})},
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "How it is doing, for Prometheus.",
                "responses": {
                    "200": {
                        "description": "Text.",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    },
                    **problems,
                },
                **guarded,
            }
        },
    }
    components: dict[str, Any] = {"schemas": _SCHEMAS}
    if secured:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "headrace", "version": version("headrace")},
        "paths": paths,
        "components": components,
    }


_PROBLEMS = (400, 401, 404, 405, 408, 409, 413, 415, 421, 422, 429, 500, 503)


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _said(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": _json(schema)}


def _problem() -> dict[str, Any]:
    return {
        "description": "Problem details (RFC 9457).",
        "content": {MEDIA: {"schema": _ref("Problem")}},
    }


def _get(told: dict[str, Any], schema: dict[str, Any], guarded: dict[str, Any]) -> dict[str, Any]:
    problems = {str(status): _problem() for status in _PROBLEMS}
    return {**told, "responses": {"200": _said("As asked.", schema), **problems}, **guarded}


def _streamed(told: dict[str, Any], guarded: dict[str, Any]) -> dict[str, Any]:
    problems = {str(status): _problem() for status in _PROBLEMS}
    events = {"text/event-stream": {"schema": {"type": "string"}}}
    return {
        **told,
        "responses": {"200": {"description": "Events.", "content": events}, **problems},
        **guarded,
    }


def _nullable(*kinds: str) -> dict[str, Any]:
    return {"type": [*kinds, "null"]}


_SCHEMAS: dict[str, Any] = {
    "Answer": {
        "type": "object",
        "required": ["id", "prediction", "step", "version"],
        "additionalProperties": False,
        "properties": {
            "id": _nullable("string", "integer"),
            "prediction": _nullable("string", "number"),
            "step": {"type": "integer"},
            "version": {"type": "string"},
            "probabilities": {"type": "array", "items": {"type": "number"}},
            "interval": {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 2,
                "maxItems": 2,
            },
            "holdout": {"type": "boolean"},
            "explanation": {
                "type": "object",
                "required": ["base", "inputs"],
                "additionalProperties": False,
                "properties": {
                    "base": {"type": "number"},
                    "inputs": {"type": "object", "additionalProperties": {"type": "number"}},
                    "of": {"type": "string"},
                },
            },
        },
    },
    "View": {
        "type": "object",
        "required": ["task", "metric", "points", "latest", "drift", "predictions", "refused"],
        "properties": {
            "task": {"type": "string"},
            "metric": {"type": "string", "enum": ["accuracy", "mae"]},
            "points": {"type": "array", "items": {"type": "object", "required": ["t"]}},
            "latest": {"type": "object"},
            "latency": {"type": ["object", "null"]},
            "drift": {"type": "array", "items": {"type": "object"}},
            "predictions": {"type": "array", "items": {"type": "object"}},
            "explained": {"type": "array", "items": {"type": "object"}},
            "refused": {"type": "object"},
            "now_ms": {"type": "integer"},
            "first_ms": _nullable("integer"),
            "at_ms": {"type": "integer"},
            "trouble": _nullable("string"),
            "fresh": {"type": "boolean"},
        },
    },
    "Problem": {
        "type": "object",
        "required": ["title", "status", "detail"],
        "properties": {
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string"},
        },
    },
    "Standing": {
        "type": "object",
        "required": ["name", "version", "step", "behind_events", "behind_s", "task"],
        "properties": {
            "name": {"type": "string"},
            "version": _nullable("string"),
            "step": _nullable("integer"),
            "released_ms": _nullable("integer"),
            "behind_events": _nullable("integer"),
            "behind_s": _nullable("number"),
            "classes": {"type": ["array", "null"], "items": {"type": "string"}},
            "headrace": {"type": "string"},
            "task": {"type": "object"},
        },
    },
}
