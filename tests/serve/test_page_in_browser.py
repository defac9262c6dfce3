"""The page in a real browser: what it says, for whom, for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from headrace.stream.serve import pages, viewing
from headrace.stream.serve.gate import Limits
from tests.support.browser import chromium, violations
from tests.support.events import good
from tests.support.page_topics import Topics
from tests.support.serving import Ask, serving, small_task

WIDTHS = (320, 360, 768, 1280, 1920, 3840)
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>alert(1)</script>"

# What ends beyond the screen; that texts of events are cut is as it should be.
BEYOND = """
[...document.querySelectorAll('body *')].filter((each) => each.offsetParent
  && !each.closest('.uplot, td.event') && each.getBoundingClientRect().right > innerWidth + 1)
  .map((each) => each.outerHTML.slice(0, 100))
"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def topics() -> Topics:
    """Return a minute of a task where everything happened that is shown."""
    topics = Topics(small_task())
    for second in range(60):
        topics.metrics(second, 0.8 + second / 1000, importance={"x": 0.25, "color": 0.125})
    for number in range(12):
        topics.event(good(number), 40 + number)
        why = {"of": "yes", "base": 0.5, "inputs": {"x": 0.375, "color": -0.125}}
        chance = 0.55 + number / 40
        more = {"explanation": why} if number == 5 else {}
        topics.prediction(number, 40.5 + number, probabilities=[1 - chance, chance], **more)
    topics.alarm(30)
    topics.step(31, "challenge", rival="fresh")
    topics.letter("schema", 20, b'{"x": "much"}')
    return topics


@contextmanager
def served(topics: Topics, limits: Limits | None = None, port: int = 0) -> Iterator[Ask]:
    with serving(topics.task, None, limits, {topics.task.name: topics.viewing()}, port) as ask:
        yield ask


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Open the page; nothing may go wrong in it, and nothing be asked of others."""
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}} | options)
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    try:
        yield page
    finally:
        page.close()
    assert [line for line in wrong if "Failed to load resource" not in line] == []
    assert [each for each in asked if not each.startswith((url, "data:"))] == []


def section(page: Page, name: str) -> Any:
    return page.get_by_role("region", name=name)


def test_it_says_what_the_topics_say(browser: Browser, topics: Topics) -> None:
    with served(topics) as ask, opened(browser, ask.url) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("poisoned")
        right = section(page, "Is it right?")
        expect(right).to_contain_text("85.9 % right lately; no-change 70.0 %, majority 55.0 %.")
        expect(right).to_contain_text("16 points better than no-change")
        expect(right.get_by_role("row").nth(1)).to_have_text("headrace● 85.9 %● 80.9 %84.9 %0.141")
        label = right.get_by_role("img").get_attribute("aria-label")
        said = f"right over time, with 1 alarm. {WORDS} Arrow keys read values."
        assert label.replace("\u202f", " ") == said
        changed = section(page, "What changed?")
        expect(changed.get_by_role("listitem").nth(0)).to_contain_text("a challenger began")
        alarm = changed.get_by_role("listitem").nth(1)
        expect(alarm).to_contain_text("Alarm: error rose from 0.125 to 0.375 (adwin)")
        expect(alarm).to_contain_text("moved most x (PSI 1.5)")
        up = section(page, "Is it keeping up?")
        for name, said in {
            "events a second": "201",
            "events wait": "4",
            "latency, median": "500 ms",
            "events predicted": "11,800",
            "newest checkpoint": "2.5 s",
        }.items():
            tile = up.locator("dl > div").filter(has=page.locator("dt", has_text=name)).first
            expect(tile.locator("dd")).to_have_text(said)
        unsure = section(page, "What is it unsure about?")
        expect(unsure.get_by_role("row")).to_have_count(11)
        newest = unsure.get_by_role("row").nth(1)
        expect(newest).to_contain_text("e-11")
        expect(newest).to_contain_text("82.5 %")
        expect(newest.get_by_role("cell").last).to_have_text(f"{TRUTH} ✓")
        page.get_by_role("button", name="Least sure").click()
        expect(unsure.get_by_role("row").nth(1)).to_contain_text("55.0 %")
        why = section(page, "Why?")
        expect(why).to_contain_text("Usually 50.0 % for yes; what the inputs add makes it 75.0 %.")
        expect(why.locator(".bars").first).to_have_text("x+0.375color\u22120.125")
        expect(why).to_contain_text("What counted most lately")
        refused = section(page, "What was refused?")
        expect(refused).to_contain_text("3 of 11,803 events of this run. By code")
        expect(refused.get_by_role("row").nth(1)).to_contain_text('why it is schema{"x": "much"}')
        trusted = section(page, "Who is trusted?")
        expect(trusted.locator(".bars")).to_have_text("row, rate 0.00175.0 %last label25.0 %")


WORDS = "85.9 % right lately; no-change 70.0 %, majority 55.0 %."
TRUTH = "yes" if 11 % 7 > 3 else "no"


def test_it_says_what_is_not_there_yet(browser: Browser) -> None:
    with served(Topics(small_task())) as ask, opened(browser, ask.url) as page:
        expect(section(page, "Is it right?")).to_contain_text("Nothing is learned yet.")
        expect(section(page, "Why?")).to_contain_text("explain = 0.01 below [model]")
        for name, said in {
            "What changed?": "No alarm",
            "What is it unsure about?": "Nothing is predicted yet.",
            "What was refused?": "every event could be read",
            "Who is trusted?": "No member has a weight yet.",
        }.items():
            expect(section(page, name)).to_contain_text(said)
        expect(page.get_by_role("slider")).to_be_disabled()
        assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out_on_any_screen(browser: Browser, topics: Topics, scheme: Any) -> None:
    with served(topics) as ask, opened(browser, ask.url, color_scheme=scheme) as page:
        expect(section(page, "Is it right?")).to_contain_text("right lately")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(100)
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, width
            assert page.evaluate(BEYOND) == [], width
            if width in (320, 1280):
                assert violations(page) == [], width
        page.get_by_role("slider").press("PageDown")
        expect(page.locator("#state")).to_contain_text("as of")
        assert violations(page) == []


def test_hostile_texts_stay_texts(browser: Browser, topics: Topics) -> None:
    topics.event(good(12, text=HOSTILE), 61)
    topics.prediction(12, 61, id=HOSTILE, prediction=HOSTILE)
    topics.letter(HOSTILE, 61, raw=HOSTILE.encode(), detail=HOSTILE)
    topics.metrics(60, members={HOSTILE: 1.0}, importance={HOSTILE: 1})
    topics.alarm(61, detector=HOSTILE, moved=[{"column": HOSTILE, "psi": 1, "ks": 1}])
    topics.step(61, HOSTILE, member=HOSTILE)
    with served(topics) as ask, opened(browser, ask.url) as page:
        for name in ("What changed?", "What is it unsure about?", "Why?", "Who is trusted?"):
            expect(section(page, name)).to_contain_text(HOSTILE)
        refused = section(page, "What was refused?")
        expect(refused.get_by_role("row").filter(has_text=HOSTILE)).to_have_count(1)
        assert page.locator("main img, main script").count() == 0
        expect(page).to_have_title("poisoned · headrace")


def test_all_can_be_done_by_keys(browser: Browser, topics: Topics) -> None:
    with served(topics) as ask, opened(browser, ask.url) as page:
        expect(section(page, "Is it right?")).to_contain_text("85.9 %")
        reached = []
        for _ in range(12):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", reached
        order = ["score-chart", "moment", "hold", "changes"]
        assert [each for each in reached if each in order] == order
        chart = page.locator("#score-chart")
        chart.focus()
        page.keyboard.press("Home")
        expect(page.locator("#score-readout")).to_contain_text("headrace 80.0 %")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#score-readout")).to_contain_text("headrace 80.1 %")
        page.keyboard.press("Escape")
        expect(page.locator("#score-readout")).to_have_text("")
        page.get_by_role("slider").focus()
        page.keyboard.press("Home")
        expect(page.locator("#state")).to_contain_text("as of")
        expect(section(page, "Is it right?")).to_contain_text("80.0 % right lately")
        expect(section(page, "What changed?")).to_contain_text("No alarm")
        assert page.get_by_role("slider").get_attribute("aria-valuetext")
        page.get_by_role("button", name="Back to now").press("Enter")
        expect(page.locator("#state")).to_contain_text("live")
        expect(section(page, "Is it right?")).to_contain_text("85.9 %")
        section(page, "What changed?").get_by_role("button").last.press("Enter")
        expect(section(page, "Is it right?")).to_contain_text("83.0 % right lately")
        page.get_by_role("button", name="Back to now").press("Enter")
        page.get_by_role("button", name="Pause").press("Enter")
        topics.metrics(60, 0.5)
        page.wait_for_timeout(1500)
        expect(section(page, "Is it right?")).to_contain_text("85.9 %")
        page.get_by_role("button", name="Go on").press("Enter")
        expect(section(page, "Is it right?")).to_contain_text("50.0 % right lately")
        expect(section(page, "Is it right?")).to_contain_text("20 points worse than no-change")


def test_nothing_moves_for_those_who_do_not_want_it(browser: Browser, topics: Topics) -> None:
    moving = "getComputedStyle(document.querySelector('.bar')).transitionDuration"
    with served(topics) as ask:
        for wish, seconds in (("reduce", "0s"), ("no-preference", "0.25s, 0.25s")):
            with opened(browser, ask.url, reduced_motion=wish) as page:
                page.wait_for_selector(".bar")
                assert page.evaluate(moving) == seconds


def test_it_survives_a_restart_of_the_server(browser: Browser, topics: Topics) -> None:
    with served(topics) as ask:
        port, url = ask.port, ask.url
        context = opened(browser, url)
        page = context.__enter__()
        expect(section(page, "Is it right?")).to_contain_text("85.9 %")
    expect(page.get_by_role("alert")).to_contain_text("does not answer; trying again")
    expect(page.locator("#state")).to_contain_text("no connection")
    expect(section(page, "Is it right?")).to_contain_text("85.9 %")
    topics.metrics(60, 0.625)
    with served(topics, port=port):
        expect(section(page, "Is it right?")).to_contain_text("62.5 %", timeout=15_000)
        expect(page.get_by_role("alert")).to_be_hidden()
        points = "document.querySelector('#score-chart').getAttribute('aria-label')"
        assert "1 alarm" in page.evaluate(points)
        context.__exit__(None, None, None)


def test_the_token_is_asked_for_once_and_kept_nowhere(browser: Browser, topics: Topics) -> None:
    with (
        served(topics, Limits(token=b"correct-horse-battery")) as ask,
        opened(browser, ask.url) as page,
    ):
        field = page.get_by_label("Token of this service")
        expect(field).to_be_focused()
        assert violations(page) == []
        field.fill("wrong")
        field.press("Enter")
        expect(page.get_by_text("That is not the token of this service.")).to_be_visible()
        field.fill("correct-horse-battery")
        field.press("Enter")
        expect(section(page, "Is it right?")).to_contain_text("85.9 %")
        expect(field).to_be_hidden()
        kept = "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
        assert "battery" not in page.evaluate(kept)


def test_an_hour_of_data_does_not_fill_it(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, tell: Any
) -> None:
    """3,600 records of metrics and 12,000 predictions, as soon as the page takes them."""
    for module, name, value in (
        (pages, "TURN_S", 0.005),
        (pages, "LEAST_S", 0.0),
        (viewing, "TURN_S", 0.005),
        (viewing, "LOOK_S", 0.02),
    ):
        monkeypatch.setattr(module, name, value)
    topics, heaps = Topics(small_task()), []
    with served(topics) as ask, opened(browser, ask.url) as page:
        page.wait_for_selector("#view:not([hidden])")
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")

        def heap() -> tuple[float, float]:
            session.send("HeapProfiler.collectGarbage")
            found = session.send("Performance.getMetrics")["metrics"]
            told = {each["name"]: each["value"] for each in found}
            return told["JSHeapUsedSize"] / 1e6, told["Nodes"]

        for second in range(3_600):
            topics.metrics(second, 0.7 + second % 100 / 1000)
            for number in range(0 if second % 3 else 10):
                topics.event(good(second))
                topics.prediction(10 * (second // 3) + number, second)
            if second % 30 == 0:
                topics.alarm(second)
                topics.letter(f"code {second % 7}", second)
            if second % 900 == 899:
                expect(page.locator("#tiles")).to_contain_text(f"{200 * second:,}", timeout=30_000)
                heaps.append(heap())
            time.sleep(0.002)
    first, *_, last = heaps
    tell(f"page: heap {first[0]:.1f} MB after 15 minutes, {last[0]:.1f} MB after an hour")
    assert last[0] < first[0] + 2.0
    assert last[1] < first[1] * 1.3
