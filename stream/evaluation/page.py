"""A drawing as a page of HTML: for any screen, offline, and to be read without seeing it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from typing import Any

from headrace.stream.evaluation.scores import shown
from headrace.stream.evaluation.words import Series
from headrace.stream.process.terminal import visible

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>
:root{{color-scheme:light dark;--paper:#fff;--ink:#1b1b1b;--line:#d0d0d0}}
@media(prefers-color-scheme:dark){{:root{{--paper:#16181c;--ink:#e8e8e8;--line:#44484f}}}}
body{{margin:2em auto;max-width:60em;padding:0 1em;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif}}
h1,p,figcaption,caption{{overflow-wrap:anywhere}}
h1{{font-size:1.4rem}}figure{{margin:1.5em 0}}
.wide{{overflow-x:auto}}.wide:focus-visible{{outline:2px solid}}
svg{{display:block;width:100%;min-width:36rem;height:auto}}svg text{{fill:currentColor}}
.at{{fill:transparent;pointer-events:all}}.at:hover{{fill:currentColor;fill-opacity:.12}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}
th,td{{border-bottom:1px solid var(--line);padding:.15em .8em;text-align:right}}
summary{{cursor:pointer}}
</style></head>
<body><main><h1>{title}</h1><p>{about}</p>
<figure><div class="wide" role="group" aria-label="Drawing" tabindex="0">{svg}</div>
<figcaption>{caption}</figcaption></figure>
<details><summary>The figures as a table</summary>
<div class="wide" role="group" aria-label="Table" tabindex="0">
<table><caption>{scope}</caption>
<thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table></div></details></main></body></html>
"""


def page(
    figure: Any,
    svg: str,
    *,
    title: str,
    about: str,
    scope: str,
    source: str,
    events: Sequence[int],
    series: Sequence[Series],
) -> bytes:
    """Return a page with a drawing, what it shows in words, and its values.

    A value is shown where a pointer rests, without any script.

    Args:
        figure: matplotlib's, as it was saved.
        svg: what was saved of it, with texts as texts.
        scope: says what the values are of.
        source: what the events were read from; "" if that is not known.
    """
    svg = svg[svg.index("<svg") :].replace(": #000000", ": currentColor")
    svg = svg.replace("<svg", '<svg role="img" aria-labelledby="title about"', 1)
    named = f'<title id="title">{escape(title)}</title><desc id="about">{escape(about)}</desc>'
    svg = re.sub(r"(<svg[^>]*>)", lambda begin: begin[1] + named, svg, count=1)
    svg = svg.replace("</svg>", "".join(_places(figure, svg, events, series)) + "</svg>")
    made = f"headrace {version('headrace')}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    caption = ", ".join(filter(None, [visible(source, keep=""), made]))
    head = ["events", *(each.name for each in series)]
    return _PAGE.format(
        title=escape(title),
        about=escape(about),
        svg=svg,
        caption=escape(caption),
        scope=escape(scope),
        head="".join(f'<th scope="col">{escape(name)}</th>' for name in head),
        rows="\n".join(_rows(events, series)),
    ).encode()


def _rows(events: Sequence[int], series: Sequence[Series]) -> Iterator[str]:
    for at, count in enumerate(events):
        cells = "".join(f"<td>{_value(each.values[at])}</td>" for each in series)
        yield f'<tr><th scope="row">{count:,}</th>{cells}</tr>'


def _places(
    figure: Any, svg: str, events: Sequence[int], series: Sequence[Series]
) -> Iterator[str]:
    """Yield, for each point, what is under the pointer near it, with its values."""
    wide, high = (float(size) for size in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    boxes = [axes.get_position() for axes in figure.axes]
    left, right = boxes[0].x0 * wide, boxes[0].x1 * wide
    top, bottom = (1 - max(box.y1 for box in boxes)) * high, (1 - min(b.y0 for b in boxes)) * high
    low, end = figure.axes[0].get_xlim()
    xs = [left + (right - left) * (count - low) / ((end - low) or 1) for count in events]
    for at, x in enumerate(xs):
        begin = (xs[at - 1] + x) / 2 if at else left
        stop = (xs[at + 1] + x) / 2 if at + 1 < len(xs) else right
        told = [f"{events[at]:,} events"]
        told += [f"{each.name}: {_value(each.values[at])}" for each in series]
        yield (
            f'<rect class="at" x="{begin:.2f}" y="{top:.2f}" width="{max(stop - begin, 0):.2f}" '
            f'height="{bottom - top:.2f}"><title>{escape(chr(10).join(told))}</title></rect>'
        )


def _value(value: float) -> str:
    return shown(None if value != value else value)
