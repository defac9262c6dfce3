"""What is wrong with a task file, in words: where it stands, the key, the value, what is expected.

What is expected comes from the schema of the task, so that no words of pydantic are shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from headrace.stream.errors import did_you_mean
from headrace.stream.task.part import PLUGIN, MistakesError, Part
from headrace.stream.task.places import Path, places

MOST_SHOWN = 60  # characters of a value
MOST_KNOWN = 30  # keys that are listed
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII).fullmatch
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_NAMES = "letters, digits, - and _"
_PATTERNS = {
    PLUGIN: f"the name of an installed part (a to z, {_NAMES.removeprefix('letters, ')})",
    "^keras:": "keras:PATH",
    r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,99}$": f"1 to 100 {_NAMES}, not with - or _ in front",
    r"^[a-zA-Z0-9._-]{1,249}$": "the name of a topic: 1 to 249 letters, digits, ., - and _",
}


def of_toml(error: ValueError, text: str, origin: str) -> list[str]:
    """Return the line that says where a text is no TOML."""
    told = str(error)
    if not (found := _AT.search(told)):
        return [f"{origin}: not TOML: {told}"]
    told = told[: found.start()]
    end = str(text.count("\n") + 1), str(len(text) - text.rfind("\n"))
    line, column = (found[1], found[2]) if found[1] else end
    return [f"{origin}:{line}:{column}: not TOML: {told[:1].lower()}{told[1:]}"]


def of_task(error: Any, form: type[Part], text: str, origin: str) -> list[str]:
    """Return a line for each mistake that pydantic found in a table, in the order of the text."""
    where = Where(text, origin)
    schema = form.model_json_schema()
    found = [each for problem in error.errors() for each in _mistakes(problem, schema)]
    found = [*dict.fromkeys(found)]
    found.sort(key=lambda each: where.order(each[0]))
    return [f"{where.of(path)}: {line}" for path, line in found]


class Where:
    """Say where the keys of a task stand.

    Args:
        text: of the file; "" if there is none.
        origin: what it is called.
    """

    def __init__(self, text: str, origin: str) -> None:
        self._places, self._origin = places(text), origin
        self._shown = {dotted(path): path for path in self._places}

    def of(self, path: Path) -> str:
        """Return `file:line:column` of a key, or of the table that it should be in."""
        while path and path not in self._places:
            path = path[:-1]
        line, column = self._places.get(path, (0, 0))
        return f"{self._origin}:{line}:{column}" if line else self._origin

    def of_line(self, told: str) -> str:
        """Return the same of the key that a line begins with."""
        return self.of(self._shown.get(re.split(r"[ :]", told, maxsplit=1)[0], ()))

    def order(self, path: Path) -> tuple[int, int]:
        """Return line and column of a key; of one that is missing, after all else."""
        return self._places.get(path, (1 << 30, 0))


def dotted(path: Path) -> str:
    """Write a path as TOML writes keys: `features."a b".min`, `hidden[0]`."""
    told = ""
    for part in path:
        if isinstance(part, int):
            told += f"[{part}]"
            continue
        name = part if _BARE(part) else f'"{part}"'
        told += f".{name}" if told else name
    return told or "task"


def _mistakes(problem: Any, schema: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield the path and the line of each mistake in one error of pydantic."""
    place, node, tables = _find(problem["loc"], schema)
    told = problem.get("ctx", {}).get("error")
    if isinstance(told, MistakesError):
        for key, words in told.found:
            inner = key if isinstance(key, tuple) else (key,) if key else ()
            yield (*place, *inner), _line((*place, *inner), _within(problem["input"], inner), words)
    elif problem["type"] == "value_error":
        yield place, _line(place, problem["input"], str(told))
    elif problem["type"] == "extra_forbidden":
        yield place, f"{dotted(place)}: no such key{_hint(str(place[-1]), tables, schema)}"
    elif problem["type"] == "union_tag_not_found":
        kinds = _literals(_alternatives(node, schema), "kind")
        yield place, f"{dotted((*place, 'kind'))}: missing; expected {_listed(kinds)}"
    elif problem["type"] == "missing":
        about = node.get("description", "").partition(";")[0].rstrip(".")
        about = f"{about[:1].lower()}{about[1:]}" if about else _expected(node, schema)
        yield place, f"{dotted(place)}: missing; expected {about}"
    elif problem["type"] == "union_tag_invalid":
        kinds = _literals(_alternatives(node, schema), "kind")
        value, path = problem["ctx"]["tag"], (*place, "kind")
        yield path, _line(path, value, f"expected {_listed(kinds)}{_near(value, kinds)}")
    elif place[-1:] == ("[key]",):
        yield place[:-1], f"{dotted(place[:-1])}: a name in it has more than {_most(schema)}"
    else:
        finite = "a finite number" if problem["type"] == "finite_number" else ""
        known = [name for each in _alternatives(node, schema) for name in each.get("enum", ())]
        near = _near(problem["input"], known)
        words = f"expected {finite or _expected(node, schema)}{near}"
        yield place, _line(place, problem["input"], words)


def _most(schema: dict[str, Any]) -> str:
    names = schema["properties"]["features"].get("propertyNames", {})
    return f"{names.get('maxLength', 0)} characters; expected at most so many"


def _find(
    location: Iterable[Any], schema: dict[str, Any]
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Follow pydantic's location through the schema.

    Returns:
        the path in the file: without the names that pydantic gives to alternatives; the schema
        that is expected there; and that of the table around it.
    """
    place: Path = ()
    node = around = schema
    parts = [*location]
    for at, part in enumerate(parts):
        node = _resolved(node, schema)
        inner = _step(node, part, schema)
        if inner is None and (chosen := _chosen(node, part, schema)):
            node = chosen if at + 1 < len(parts) else node  # `part` is the name of an alternative
            continue
        place, around, node = (*place, part), node, inner or {}
    return place, _resolved(node, schema), around


def _step(node: dict[str, Any], part: Any, schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return what is expected at a key or an index; None if neither is foreseen."""
    inner: dict[str, Any] | None
    if isinstance(part, int):
        inner = node.get("items")
        if inner is None and "prefixItems" in node:
            inner = node["prefixItems"][min(part, len(node["prefixItems"]) - 1)]
    else:
        inner = node.get("properties", {}).get(part)
        if inner is None and isinstance(node.get("additionalProperties"), dict):
            inner = node["additionalProperties"]
    if inner is None and "oneOf" not in node:
        for each in node.get("anyOf", ()):
            if found := _step(_resolved(each, schema), part, schema):
                return found
    return inner


def _chosen(node: dict[str, Any], part: Any, schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the alternative that pydantic means by a name of its own."""
    kinds: dict[str, str] = node.get("discriminator", {}).get("mapping", {})
    if part in kinds:
        return _resolved({"$ref": kinds[part]}, schema)
    names = {
        "[list]": "array",
        "[table]": "object",
        "[number]": "number",
        "[name]": "string",
        "[truth]": "boolean",
    }
    if part in names:
        for each in _alternatives(node, schema):
            if each.get("type") == names[part]:
                return each
        return node
    return None


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return what a name in a schema stands for, also where it may be left out."""
    named = [each for each in node.get("anyOf", ()) if each.get("type") != "null"]
    if len(named) == 1 and "$ref" in named[0]:
        node = {**node, **named[0]}
    name = node.get("$ref", "").rpartition("/")[2]
    if name not in schema.get("$defs", {}):
        return node
    return {
        **schema["$defs"][name],
        **{key: node[key] for key in node if key not in ("$ref", "anyOf")},
    }


def _alternatives(node: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the alternatives of a schema, those within them, too; itself if there are none."""
    inner = [*node.get("anyOf", ()), *node.get("oneOf", ())]
    if not inner:
        return [node]
    return [each for one in inner for each in _alternatives(_resolved(one, schema), schema)]


def _expected(node: dict[str, Any], schema: dict[str, Any]) -> str:
    """Say in words what a schema lets in."""
    every = _alternatives(_resolved(node, schema), schema)
    told = [_plainly(each, schema) for each in every if each.get("type") != "null"]
    return " or ".join(dict.fromkeys(told)) or "another value"


def _plainly(node: dict[str, Any], schema: dict[str, Any]) -> str:
    if "enum" in node:
        return _listed(node["enum"])
    if "const" in node:
        return f"{node['const']!r}"
    kind = node.get("type")
    if kind in ("integer", "number"):
        return f"a {'whole ' if kind == 'integer' else ''}number{_range(node)}"
    if kind == "boolean":
        return "true or false"
    if kind == "array":
        items = node.get("items") or {**node.get("prefixItems", [{}])[0]}
        low, high = node.get("minItems", 0), node.get("maxItems")
        many = (
            f"{low} to {high} " if low and high and low < high else f"{low} " if low == high else ""
        )
        many = f"{many}values" if many else "values"
        return f"a list of {many}, each {_expected(items, schema)}"
    if kind == "object":
        return "a table"
    if node.get("format") == "date-time":
        return "a time such as 2026-03-01T12:00:00Z"
    if node.get("format") == "path":
        return "the path of a file, as text"
    if pattern := node.get("pattern"):
        return _PATTERNS.get(pattern, "text")
    if node.get("minLength"):
        return "text that is not empty"
    return f"text of {node['maxLength']} characters at most" if "maxLength" in node else "text"


def _range(node: dict[str, Any]) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {_figure(low)} to {_figure(high)}"
    bounds = (("of at least", low), ("above", above), ("at most", high), ("below", below))
    told = " and ".join(f"{word} {_figure(end)}" for word, end in bounds if end is not None)
    return f" {told}" if told else ""


def _figure(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else repr(value)


def _listed(values: Iterable[Any]) -> str:
    *some, last = (f"{value!r}" for value in values)
    return f"{', '.join(some)} or {last}" if some else last


def _literals(every: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    """Return the values that a key has in some alternatives, each of which allows a few alone."""
    forms = [each.get("properties", {}).get(key, {}) for each in every]
    return [value for form in forms for value in form.get("enum", [form.get("const")]) if value]


def _near(value: Any, known: Any) -> str:
    return did_you_mean(value, map(str, known)) if isinstance(value, str) and known else ""


def _hint(key: str, table: dict[str, Any], schema: dict[str, Any]) -> str:
    """Say which key may be meant, where an unknown one stands, or in which table it is known."""
    known = [*table.get("properties", {})]
    near = did_you_mean(key, known)
    others = [
        name
        for name, form in schema["properties"].items()
        if key in _resolved(form, schema).get("properties", {})
    ]
    if not near and others:
        near = f"; it is a key of [{others[0]}];"
    return f"{near or ';'} known: {', '.join(known)}" if 0 < len(known) <= MOST_KNOWN else near


def _within(value: Any, path: Path) -> Any:
    part: Any
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        else:
            value = value[part] if isinstance(value, list | tuple) else None
    return value


def _line(path: Path, value: Any, words: str) -> str:
    shown = _shown(value)
    if value is None or not path or len(shown) > MOST_SHOWN:
        return f"{dotted(path)}: {words}" if path else words
    return f"{dotted(path)} = {shown}: {words}"


def _shown(value: Any) -> str:
    """Write a value as TOML does, but for the quotes of a text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_shown(each)}' for key, each in value.items())}}}"
    return repr(value)
