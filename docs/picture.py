"""Take the picture of the page that stands in the README: of the demo, in a real browser.

`uv run python docs/picture.py` runs `headrace demo` for a while, looks at its page with the
system's Chromium, and writes docs/page.png.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PLACE = Path(__file__).with_name("page.png")
SECONDS, TASK = 120, "pm25"
SIZE = {"width": 1180, "height": 1130}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def take(url: str, place: Path) -> None:
    """Write a picture of the page once it was looked at for SECONDS."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no browser: expected one of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport=SIZE, device_scale_factor=1.5, color_scheme="light")
        page.goto(f"{url}/#{TASK}")
        page.wait_for_timeout(1000 * SECONDS)
        page.screenshot(path=place)
        chromium.close()


def main() -> None:
    """Run the demo, and take the picture."""
    command = [sys.executable, "-P", "-m", "headrace", "demo"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as demo:
        try:
            for line in demo.stderr or ():
                if found := re.search(r"seen at (http\S+)", line):
                    take(found[1], PLACE)
                    break
        finally:
            demo.send_signal(signal.SIGINT)
            demo.communicate()


if __name__ == "__main__":
    main()
