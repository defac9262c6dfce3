"""Pages of HTML in a real browser: Chromium, and axe-core, which looks for what shuts people out.

Chromium is the system's; axe-core comes by npm, once.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from headrace.stream.process.paths import cache_dir
from tests.support.storage_servers import installed

AXE = "axe-core@4.10.3"
WAIT_S = 240
NAMES = ("chromium", "chromium-browser", "google-chrome")
# In the frame of each width: what axe finds; texts of drawings by the contrast of their colour,
# which axe leaves open; what was asked of a network; how wide the page is; what lies on another.
_LOOK = """
const light = (colour) => {
  const rgb = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
};
const look = async (frame) => {
  const page = frame.contentWindow, all = (what) => [...page.document.querySelectorAll(what)];
  all("details").forEach((each) => { each.open = true; });
  const found = await page.axe.run();
  const paper = light(page.getComputedStyle(page.document.body).backgroundColor);
  const texts = all("svg text").map((text) => {
    const ink = light(page.getComputedStyle(text).fill);
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    return { text: text.textContent, contrast, box: text.getBoundingClientRect().toJSON() };
  });
  const svg = page.document.querySelector("svg").getBoundingClientRect().toJSON();
  const points = all("rect.at").map((each) => each.getBoundingClientRect().toJSON());
  const asked = page.performance.getEntriesByType("resource").map((each) => each.name);
  return {
    width: page.innerWidth, dark: page.matchMedia("(prefers-color-scheme:dark)").matches,
    violations: found.violations.map((each) => `${each.impact} ${each.id}: ${each.help}`),
    passes: found.passes.length, texts, svg, points, asked, errors: page.errors,
    scrolls: page.document.documentElement.scrollWidth - page.innerWidth,
  };
};
addEventListener("load", async () => {
  const seen = [];
  for (const frame of document.querySelectorAll("iframe")) {
    try { seen.push(await look(frame)); } catch (error) { seen.push({ failed: String(error) }); }
  }
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
"""
_BEGIN = "<script>errors = []; onerror = (told) => { errors.push(told); };</script>"


def looked_at(page: Path, widths: tuple[int, ...], *, dark: bool) -> list[dict[str, Any]]:
    """Return what a browser finds of a page, for each width in pixels. Skips where none is."""
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        pytest.skip(f"NO BROWSER ({', '.join(NAMES)}): PAGES OF HTML ARE NOT LOOKED AT")
    axe = f"<script>{axe_core().read_text('utf-8')}</script>"
    text = page.read_text("utf-8").replace("<head>", f"<head>{_BEGIN}{axe}", 1)
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{html.escape(text)}"></iframe>'
        for width in widths
    )
    around = page.with_name(f"around-{page.name}")
    around.write_text(
        f'<!doctype html><meta charset="utf-8"><title>t</title><script>{_LOOK}</script>'
        f'{frames}<pre id="seen"></pre>',
        "utf-8",
    )
    command = [
        *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *(f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=60000"),
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        *("--dump-dom", around.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
    told = re.search(r'<pre id="seen">(.+?)</pre>', done.stdout, re.DOTALL)
    assert told, done.stderr[-2000:]
    seen: list[dict[str, Any]] = json.loads(html.unescape(told[1]))
    return seen


def axe_core() -> Path:
    """Return the script of axe-core; install it if it is not there. Skips where it is not to be."""
    place = cache_dir("axe-core")
    command = ["npm", "install", "--silent", "--prefix", str(place), AXE]
    try:
        return installed(place, "node_modules/axe-core/axe.min.js", command)
    except (OSError, RuntimeError) as error:
        pytest.skip(f"NO AXE-CORE ({error}): PAGES OF HTML ARE NOT LOOKED AT")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the system's Chromium, to be driven by Playwright. Skips where there is none."""
    place = next(filter(None, map(shutil.which, NAMES)), None)
    if place is None:
        pytest.skip(f"NO BROWSER ({', '.join(NAMES)}): THE PAGE IS NOT LOOKED AT")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def violations(page: Page) -> list[str]:
    """Return what axe-core finds that shuts people out of a page as it is."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe_core().read_text("utf-8"))
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10, "axe-core has looked at nothing"
    return [
        f"{each['impact']} {each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
    ]
