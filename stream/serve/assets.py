"""The files of the page: which there are, and how browsers may treat them."""

from __future__ import annotations

SCRIPTS = ("page", "link", "sections", "words", "elements", "charts", "uPlot")
FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in SCRIPTS},
    "/uPlot.css": ("uPlot.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
STREAM = "/stream"
"""How the paths of answers that go on for ever end."""
LAST_MS = (1 << 53) - 1
"""The last moment that can be asked for: JavaScript knows no later integer."""
