"""Moments that have passed: the page as it was, from Kafka and from an archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.stream.errors import HistoryError
from headrace.stream.serve.past import PastTopic
from tests.support.archives import Record, write_segment
from tests.support.events import good
from tests.support.page_topics import BEGIN_MS, Topics
from tests.support.serving import small_task

HOUR_S = 3600


@pytest.fixture
def topics() -> Topics:
    """Return an hour: a score each 2 s, an event each 20 s, an alarm each 10 minutes."""
    topics = Topics(small_task())
    for second in range(0, HOUR_S, 2):
        topics.metrics(second, second / HOUR_S)
        if second % 20 == 0:
            topics.event(good(second // 20), second)
            topics.prediction(second // 20, second + 0.5)
        if second % 600 == 300:
            topics.alarm(second)
            topics.letter("schema", second)
    return topics


def moment(second: float) -> int:
    return BEGIN_MS + int(1000 * second)


def test_it_is_shown_as_it_was(topics: Topics) -> None:
    found = topics.viewing().at(moment(1801))
    assert found["at_ms"] == moment(1801)
    assert found["points"][-1]["t"] == moment(1800)
    assert found["latest"]["events"] == 200 * 1800
    assert found["points"][0]["t"] == moment(1800 - 2 * 899)
    assert [each["at_ms"] for each in found["drift"]] == [moment(300), moment(900), moment(1500)]
    assert found["refused"]["schema"]["count"] == 3
    newest = found["predictions"][0]
    assert (newest["id"], newest["truth"]) == ("e-90", "yes" if 90 % 7 > 3 else "no")
    nothing = topics.viewing().at(moment(-10))
    assert (nothing["points"], nothing["predictions"], nothing["refused"]) == ([], [], {})
    last = topics.viewing().at(moment(10 * HOUR_S))
    assert last["points"][-1]["t"] == moment(HOUR_S - 2)


def keep(topics: Topics, place: Path, stage: str, until: int, per_file: int) -> None:
    """Archive the first records of a topic, then have Kafka forget them."""
    topic = topics.task.input.topic if stage == "input" else topics.task.output(stage)
    of = topics.kafka.topics[topic][0]
    offsets = [at for at in of.offsets if at < until]
    for at in range(0, len(offsets), per_file):
        part = offsets[at : at + per_file]
        records = [Record(0, each, of.times_ms[each], b"", of.values[each]) for each in part]
        following = offsets[at + per_file] if at + per_file < len(offsets) else until
        write_segment(place, topic, records, following, "2025-12-01")
    of.begin = until


def test_what_kafka_holds_no_more_comes_from_an_archive(topics: Topics, tmp_path: Path) -> None:
    wanted = {at: topics.viewing().at(moment(at)) for at in (0, 59, 700, 1001, 2399, 2400, 3000)}
    for stage, until in (("metrics", 1_200), ("predictions", 120), ("input", 120)):
        keep(topics, tmp_path, stage, until, 250)
    keep(topics, tmp_path, "drift", 3, 2)
    lost = topics.viewing().at(moment(700))
    assert (lost["points"], lost["drift"]) == ([], [])
    viewing = topics.viewing(str(tmp_path))
    for at, before in wanted.items():
        found = viewing.at(moment(at))
        for name in ("points", "drift", "predictions", "latest"):
            assert found[name] == before[name], (at, name)
    metrics = topics.task.output("metrics")
    assert PastTopic(topics.kafka, metrics, str(tmp_path)).first_ms() == moment(0)
    assert PastTopic(topics.kafka, metrics, None).first_ms() == moment(2_400)


def test_an_archive_that_is_damaged_is_told(topics: Topics, tmp_path: Path) -> None:
    keep(topics, tmp_path, "metrics", 1_200, 250)
    for file in tmp_path.rglob("*.parquet"):
        file.write_bytes(b"nothing")
    with pytest.raises(HistoryError, match="damaged"):
        topics.viewing(str(tmp_path)).at(moment(700))
