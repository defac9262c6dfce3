"""Fill in what the pages of the documentation take from the code: tables of keys and of fields.

A page holds them between `<!-- generated: KIND NAME -->` and `<!-- end -->`. As a hook of mkdocs
this fills them in at each build; `uv run python docs/reference.py` writes them to the pages, so
that they can be read without a build. A test compares.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from headrace.stream import events
from headrace.stream.kafka.topic_specs import topic_specs
from headrace.stream.ledger import ledger
from headrace.stream.task import Task, validate

DOCS = Path(__file__).parent
_PLACE = re.compile(r"(<!-- generated: (\w+) ?([\w.]*) -->\n).*?(<!-- end -->)", re.DOTALL)
_ELSEWHERE = re.compile(r'(\bsrc=|<link [^>]*href=)"(https?:)?//[^"]*"')
_SCHEMA: dict[str, Any] = Task.model_json_schema()

SAMPLE = {
    "name": "<task>",
    "input": {"topic": "<topic>"},
    "target": {"field": "y", "kind": "classify", "classes": ["a", "b"]},
    "features": {"x": {"kind": "number"}},
    "labels": {"topic": "labels"},
}
HOLDS = {
    "topic": "raw events; one per event of yours",
    "labels": "labels that come late, if the task names a topic for them; one per label of yours",
    "expired": "one record per event that expired without a label (JSON); with `[labels]`",
    "features": "one row per raw event, or the code with which it was rejected (MessagePack)",
    "predictions": "one prediction per accepted event (JSON)",
    "dead-letter": "one record per rejected event (JSON)",
    "metrics": "prequential metrics, one record per second (JSON)",
    "drift": "drift alarms, and the actions taken on them (JSON)",
    "models": "the newest state of the learner, by which `serve` answers: chunks, then a manifest",
    "ledger": "one record per transaction and per start: the commit log of the learner (JSON)",
}
FIELDS: dict[str, dict[str, str]] = {
    "Feature": {
        "topic": "topic of the raw event",
        "partition": "partition of the raw event",
        "offset": "offset of the raw event",
        "reject": "rejection code; null for an accepted event",
        "id": "event id",
        "time_ms": "event time, Unix milliseconds",
        "label": "label (for classes: the index of the class); NaN = unknown",
        "numeric": "numeric columns, float64 little-endian; NaN = missing",
        "ids": "hashed categories and tokens, uint32 little-endian",
        "entity": "hash of the entity, uint32 little-endian",
        "image": "pixels, one byte per channel",
        "new_class": "name of a class that the task file does not declare",
        "weight": "sample weight",
        "arrived_ms": "Kafka's timestamp of the event, where the task needs it; else 0",
    },
    "Expired": {
        "id": "event id",
        "time_ms": "event time, Unix milliseconds",
        "partition": "partition of the raw event",
        "offset": "offset of the raw event",
        "label": "what was learned of it instead, with `labels.on_expiry`",
    },
    "Truth": {
        "labels": "labels that came, within events and by themselves",
        "scored": "events scored: by their first label, or as `labels.on_expiry` says",
        "implied": "of these, events that expired and got the label of `labels.on_expiry`",
        "expired": "events that expired without one",
        "rescored": "labels that corrected an earlier one: scored, too",
        "relearned": "labels that corrected an earlier one: scored and learned, too",
        "repeated": "labels that came again and say the same",
        "unasked": "labels that no prediction waits for: of the first events of an entity, with a "
        "horizon",
        "refused": "labels refused, each with a dead letter",
        "held": "labels that wait for their event, less those that did before",
    },
    "Range": {
        "partition": "partition of the labels topic",
        "start": "first offset",
        "stop": "offset after the last one",
    },
    "Prediction": {
        "id": "event id",
        "prediction": "predicted class or number; null before any class is known",
        "step": "optimizer steps made before this prediction",
        "time_ms": "event time, Unix milliseconds",
        "partition": "partition of the raw event",
        "offset": "offset of the raw event",
        "probabilities": "classification: one per class, first the declared classes in the order "
        "of the task file, then new ones in order of arrival",
        "interval": "regression: lower and upper bound of the prediction interval",
        "holdout": "whether the event is held out, see `labels.holdout`",
        "explanation": "what drove it, of a sample of events, see [Explanations](explanations.md)",
    },
    "Explanation": {
        "base": "mean prediction of a sample of the newest rows",
        "inputs": "what each input adds to it",
        "of": "classification: the predicted class, of whose probability it is",
    },
    "DeadLetter": {
        "code": "rejection code, see below",
        "detail": f"explanation, at most {events.LETTER_DETAIL} characters",
        "topic": "topic of the raw event",
        "partition": "partition of the raw event",
        "offset": "offset of the raw event",
        "key": f"record key, base64, the first {events.LETTER_KEY_BYTES:,} bytes",
        "raw": f"record value, base64, the first {events.LETTER_RAW_BYTES:,} bytes; null also when "
        "the learner rejects a row that the normaliser accepted",
        "key_bytes": "size of a key that was truncated",
        "key_sha256": "SHA-256 of a key that was truncated",
        "raw_bytes": "size of a value that was truncated",
        "raw_sha256": "SHA-256 of a value that was truncated",
    },
    "DriftAlarm": {
        "detector": "detector that fired",
        "id": "id of the event whose error triggered it",
        "step": "optimizer steps made",
        "time_ms": "event time, Unix milliseconds",
        "partition": "partition of the raw event",
        "offset": "offset of the raw event",
        "before": "mean error before the change",
        "after": "mean error after the change",
        "statistic": "value of the detector's statistic",
        "threshold": "threshold that it reached",
        "window": "labelled events that the statistic covers",
        "moved": "up to 3 inputs whose distribution changed most since the last alarm",
    },
    "Moved": {
        "column": 'numeric feature, calendar input, or "prediction"',
        "psi": "population stability index",
        "ks": "Kolmogorov-Smirnov statistic",
    },
    "LadderStep": {
        "action": "what was done",
        "id": "id of the event at which it was done",
        "step": "optimizer steps made",
        "time_ms": "event time, Unix milliseconds",
        "partition": "partition of the raw event",
        "offset": "offset of the raw event",
        "rival": "challenger: newly initialised networks, or an earlier snapshot",
        "events": "labels that the comparison covers",
        "gain": "mean error of the champion minus that of the challenger",
        "low": "lower bound of `gain` (95 % confidence sequence)",
        "high": "upper bound of `gain` (95 % confidence sequence)",
        "exchanged": "two classes whose labels were swapped",
        "statistic": "log-likelihood ratio in favour of the swap",
        "member": "pool member that was reset because its numbers overflowed or became NaN",
    },
    "Record": {
        "seq": "number of the record, without gaps",
        "run": "id of the run: one state and its history; `--from-scratch` begins another",
        "epoch": "grows by one at each start of a learner",
        "time_ms": "wall-clock time, Unix milliseconds",
        "consumed": "raw offset ranges covered by the transaction, one per partition",
        "predicted": "events predicted",
        "rejected": "events rejected by the normaliser",
        "repeated": "events rejected by the learner: duplicate id, or no room for the class",
        "duplicates": "rows of the features topic that arrived again and were dropped",
        "healed": "events whose row never arrived, normalised by the learner itself",
        "dead_letters": "records written to `<task>.dead-letter`",
        "alarms": "records written to `<task>.drift`",
        "output_digest": "digest of the model's numeric output, which a replay must reproduce",
        "predictions": "digest of the bytes written to `<task>.predictions`",
        "labels": "offset ranges of the labels topic covered by the transaction",
        "truth": "what became of labels, and of events that wait for one",
        "reading": "next offset per partition of the features topic, when that is read",
        "session_start": "present in the first record of each session",
        "saved": "announcement of a checkpoint",
        "position": "digest of the learner's position after the record",
        "chain": "SHA-256 over the previous record's chain and this record",
    },
    "Consumed": {
        "partition": "raw partition",
        "start": "first offset",
        "stop": "offset after the last one",
        "predicted": "events predicted among them",
    },
    "SessionStart": {
        "task": "fingerprint of the task",
        "code": "fingerprint of the code",
        "version": "version of headrace",
        "settings": "the whole task, in the first session of a run",
        "begins": "first offset per partition, for a new run or a new topic",
        "label_begins": "the same of the labels topic",
        "start": "digest of the saved state that the run begins with (`--start-from`)",
        "topics": "topic ids by name",
        "recomputed": "ledger records accepted as not reproducible (`--accept-recompute`)",
    },
    "Saved": {
        "seq": "record after which the state was saved",
        "state": "digest of the state",
    },
}


def fill(text: str) -> str:
    """Return a page with its generated parts as of the code that is here."""
    return _PLACE.sub(lambda at: at[1] + _KINDS[at[2]](at[3]) + at[4], text)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let mkdocs see a page with its generated parts."""
    return fill(markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Fail a build whose pages would load anything from elsewhere."""
    if found := _ELSEWHERE.search(output):
        raise ValueError(f"a page loads something from elsewhere: {found[0]}")
    return output


def keys(name: str) -> str:
    """Tabulate the keys of a table of the task file: `Input`, `Model`, ... or `Task` itself."""
    definition = _SCHEMA if name == "Task" else _SCHEMA["$defs"][name]
    required = definition.get("required", [])
    rows = []
    for key, form in definition["properties"].items():
        if name == "Task" and (key == "features" or _is_table(form)):
            continue
        default = "**required**" if key in required else _default(form)
        text = form.get("description", "")
        rows.append([f"`{key}`", _type(form), default, _range(form), text])
    return _table(["key", "type", "default", "range", "description"], rows)


def record(name: str) -> str:
    """Tabulate the fields of a record."""
    struct = getattr(events, name, None) or getattr(ledger, name)
    if issubclass(struct, tuple):
        fields = [(each, each, kind, False) for each, kind in get_type_hints(struct).items()]
    else:
        omitted = struct.__struct_config__.omit_defaults
        fields = [
            (each.name, each.encode_name, each.type, omitted and not each.required)
            for each in msgspec.structs.fields(struct)
        ]
    told = FIELDS[name]
    if unlike := {field for field, *_ in fields} ^ told.keys():
        raise KeyError(f"docs/reference.py: {name} has other fields: {', '.join(sorted(unlike))}")
    rows = []
    tag = getattr(getattr(struct, "__struct_config__", None), "tag", None)
    if tag:
        rows.append(["`kind`", "string", "", f'always `"{tag}"`'])
    for field, encoded, kind, optional in fields:
        rows.append([f"`{encoded}`", _annotation(kind), "yes" if optional else "", told[field]])
    return _table(["field", "type", "may be absent", "meaning"], rows)


def topics(_: str) -> str:
    """Tabulate the topics of a task."""
    rows = []
    task = validate(SAMPLE | {"name": "task", "input": {"topic": "topic"}}, "sample")
    inputs = {"topic": "input.topic", "labels": "labels.topic"}
    for spec in topic_specs(task):
        stage = spec.name.removeprefix("task.")
        partitions = "`topics.partitions`" if stage in inputs else "those of the raw topic"
        if spec.role != "input" and spec.beside is None:
            partitions = str(spec.partitions)
        kept = "`topics.retention_hours`" if spec.retention_ms != -1 else "for ever"
        if spec.role == "models":
            kept = "the newest release (compacted)"
        shown = inputs.get(stage, f"<task>.{stage}")
        rows.append([f"`{shown}`", HOLDS[stage], partitions, kept])
    return _table(["topic", "records", "partitions", "retention"], rows)


def layers(name: str) -> str:
    """List the layers of one container of the import contract."""
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each.get("containers") == [name]]
    rows = []
    for at, layer in enumerate(contract["layers"]):
        below = [each.replace(" | ", ", ") for each in contract["layers"][at + 1 :]]
        names = ", ".join(f"`{part}`" for part in layer.split(" | "))
        rows.append([names, ", ".join(below) or "none of these"])
    return _table(["package", "may import"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )


def _resolved(form: dict[str, Any]) -> dict[str, Any]:
    ref = form.get("$ref")
    return _SCHEMA["$defs"][ref.rpartition("/")[2]] if ref else form


def _options(form: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the alternatives of a key without null."""
    alternatives = form.get("anyOf") or form.get("oneOf") or [form]
    nested: list[dict[str, Any]] = []
    for each in alternatives:
        nested += _options(each) if {"anyOf", "oneOf"} & each.keys() else [each]
    return [each for each in map(_resolved, nested) if each.get("type") != "null"]


def _is_table(form: dict[str, Any]) -> bool:
    return any("properties" in each for each in _options(form))


def _type(form: dict[str, Any]) -> str:
    return " or ".join(dict.fromkeys(map(_one_type, _options(form))))


def _one_type(form: dict[str, Any]) -> str:
    if "const" in form:
        return f"`{json.dumps(form['const'])}`"
    if "enum" in form:
        return ", ".join(f"`{json.dumps(each)}`" for each in form["enum"])
    if "properties" in form:
        return "table"
    kind = form.get("type")
    if kind == "array":
        if "prefixItems" in form:
            return f"[{', '.join(map(_type, form['prefixItems']))}]"
        return f"list of {_type(form['items'])}"
    if kind == "object":
        return f"table of {_type(form['additionalProperties'])}"
    return {"date-time": "time", "path": "path"}.get(form.get("format", ""), str(kind))


def _default(form: dict[str, Any]) -> str:
    value = form.get("default")
    if value is None:
        return "none"
    return "its own table" if isinstance(value, dict) else f"`{json.dumps(value)}`"


def _range(form: dict[str, Any]) -> str:
    return "; ".join(dict.fromkeys(filter(None, map(_one_range, _options(form)))))


def _one_range(form: dict[str, Any]) -> str:
    found = [
        f"{sign} {_number(form[key])}"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if key in form
    ]
    for least, most, unit in (
        ("minLength", "maxLength", "characters"),
        ("minItems", "maxItems", "items"),
        ("minProperties", "maxProperties", "entries"),
    ):
        if least in form and form.get(least) == form.get(most):
            found.append(f"{form[least]} {unit}")
            continue
        found += [f"≥ {form[least]} {unit}"] if least in form else []
        found += [f"≤ {_number(form[most])} {unit}"] if most in form else []
    if "pattern" in form:
        found.append(f"`{form['pattern']}`")
    inner = form.get("items") or form.get("additionalProperties")
    if isinstance(inner, dict) and (each := _range(inner)):
        found.append(f"each {each.removeprefix('each ')}")
    return ", ".join(found)


def _number(value: float) -> str:
    if value == 2**63 - 1 or value == 2**63:
        return "2^63"
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _annotation(kind: Any) -> str:
    """Put an annotation into words of JSON."""
    arguments = [each for each in get_args(kind) if each not in (type(None), ...)]
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        null = " or null" if type(None) in get_args(kind) else ""
        return " or ".join(map(_annotation, arguments)) + null
    if origin is list or (origin is tuple and ... in get_args(kind)):
        return f"list of {_annotation(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(map(_annotation, arguments))}]"
    if origin is dict:
        return f"object: {_annotation(arguments[0])} to {_annotation(arguments[1])}"
    if arguments:  # literals
        return ", ".join(f"`{json.dumps(each)}`" for each in arguments)
    words = {str: "string", int: "integer", float: "number", bool: "boolean", bytes: "bytes"}
    words[Any] = "any"
    return words.get(kind) or f"[{kind.__name__}](#{kind.__name__.lower()})"


_KINDS = {"keys": keys, "record": record, "topics": topics, "layers": layers}


if __name__ == "__main__":
    for page in sorted(DOCS.glob("*.md")):
        before = page.read_text("utf-8")
        if (after := fill(before)) != before:
            page.write_text(after, "utf-8")
