"""Events that strangers send: what each must be refused as. Shared by unit and Kafka tests."""

from __future__ import annotations

import base64
import json

TASK = """
name = "poisoned"
[input]
topic = "events.poisoned"
time = "time"
entity = "entity"
max_bytes = 4096
[target]
field = "label"
kind = "classify"
classes = ["no", "yes"]
[features]
x = { kind = "number", min = -100, max = 100 }
y = { kind = "number" }
color = { kind = "category" }
text = { kind = "text", max_tokens = 16 }
"""


def task_text(name: str) -> str:
    """Return the task under another name, which its raw topic has too."""
    return TASK.replace('"poisoned"', f'"{name}"').replace("events.poisoned", name)


def good(number: int, **changes: object) -> bytes:
    """Make a good event, or one with some fields changed."""
    event: dict[str, object] = {
        "id": f"e-{number}",
        "time": "2024-05-01T12:00:00Z",
        "entity": f"station-{number % 3}",
        "x": number % 7 - 3.5,
        "y": number % 5,
        "color": ("red", "green", None)[number % 3],
        "text": f"message number {number}",
        "label": "yes" if number % 7 > 3 else "no",
    }
    return json.dumps(event | changes).encode()


_PLAIN = good(0)[:-1]
POISON: dict[str, tuple[bytes | None, str]] = {
    "tombstone": (None, "tombstone"),
    "zero bytes": (b"", "json"),
    "too large": (good(0, text="x" * 5000), "too_large"),
    "not UTF-8": (good(0).replace(b"message", b"\xff\xfe"), "encoding"),
    "not UTF-8 in a field nobody asked for": (_PLAIN + b',"z":"\xff"}', "encoding"),
    "UTF-16": (good(0).decode().encode("utf-16"), "encoding"),
    "byte order mark": (b"\xef\xbb\xbf" + good(0), "json"),
    "not JSON": (b"hello", "json"),
    "cut off": (good(0)[:-10], "json"),
    "two documents": (good(0) + good(1), "json"),
    "NaN": (good(0).replace(b"-3.5", b"NaN"), "json"),
    "Infinity": (good(0).replace(b"-3.5", b"-Infinity"), "json"),
    "beyond float64": (good(0).replace(b"-3.5", b"1e400"), "schema"),
    "five thousand digits": (good(0, text="").replace(b"-3.5", b"9" * 3500), "schema"),
    "number as text": (good(0, x="3.5"), "schema"),
    "number as boolean": (good(0, x=True), "schema"),
    "text as number": (good(0, text=3), "schema"),
    "an array": (b"[]", "schema"),
    "null": (b"null", "schema"),
    "field is an object": (good(0, x={}), "schema"),
    "no id": (good(0).replace(b'"id"', b'"di"'), "schema"),
    "null id": (good(0, id=None), "schema"),
    "empty id": (good(0, id=""), "id"),
    "endless id": (good(0, id="i" * 300), "id"),
    "id beyond int64": (good(0, id=2**70), "id"),
    "no entity": (good(0).replace(b'"entity"', b'"entiti"'), "schema"),
    "no time": (good(0).replace(b'"time"', b'"tim"'), "schema"),
    "not a time": (good(0, time="yesterday"), "time"),
    "long ago": (good(0, time="1066-10-14T09:00:00Z"), "time"),
    "far ahead": (good(0, time="2300-01-01T00:00:00Z"), "time"),
    "endless time": (good(0, time=1e300), "time"),
    "unknown class": (good(0, label="maybe"), "label"),
    "key twice": (_PLAIN + b',"x":1}', "duplicate_key"),
    "key twice, escaped": (_PLAIN + b',"\\u0078":1}', "duplicate_key"),
    "key twice in a field nobody asked for": (_PLAIN + b',"z":{"a":1,"a":2}}', "duplicate_key"),
    "key twice, another left out": (
        good(0).replace(b'"y": 0', b'"x": 0'),
        "duplicate_key",
    ),
    "deep": (_PLAIN + b',"z":' + b"[" * 9 + b"]" * 9 + b"}", "depth"),
    "very deep": (_PLAIN + b',"z":' + b"[" * 1500 + b"]" * 1500 + b"}", "depth"),
    "lone surrogate": (good(0, text="\ud800"), "json"),
    "raw control character": (good(0).replace(b"message", b"mess\x00age"), "json"),
}

IMAGE_TASK = TASK + 'photo = { kind = "image", height = 2, width = 3, channels = 4 }\n'


def picture(number: int, **changes: object) -> bytes:
    """Make a good event of IMAGE_TASK, or one with some fields changed."""
    pixels = bytes((number * 31 + place) % 256 for place in range(24))
    return good(number, **{"photo": coded(pixels)} | changes)


def coded(pixels: bytes) -> str:
    """Write bytes as base64."""
    return base64.b64encode(pixels).decode()


IMAGE_POISON: dict[str, tuple[bytes | None, str]] = {
    "no image": (good(0), "schema"),
    "null image": (picture(0, photo=None), "schema"),
    "image as list": (picture(0, photo=[0] * 24), "schema"),
    "image as number": (picture(0, photo=10**32), "schema"),
    "not base64": (picture(0, photo="%" * 32), "schema"),
    "base64 for addresses": (picture(0, photo="-_" * 16), "schema"),
    "base64 in lines": (picture(0, photo="AAAA" * 4 + "\n" + "AAAA" * 4), "schema"),
    "base64 cut off": (picture(0, photo="A" * 31), "schema"),
    "padding amid base64": (picture(0, photo="AA==" * 8), "schema"),
    "no pixels": (picture(0, photo=""), "image"),
    "a pixel short": (picture(0, photo=coded(bytes(20))), "image"),
    "a byte long": (picture(0, photo=coded(bytes(25))), "image"),
    "image twice": (picture(0)[:-1] + b',"photo":"AAAA"}', "duplicate_key"),
}
