from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from headrace.stream.errors import HistoryError
from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.kafka.history import Range, TopicHistory

SIZE = 900_000


def test_retention_may_overtake_a_reader_that_rests(
    kafka: KafkaConnection, topic: Callable[..., str]
) -> None:
    """The client fetches 16 MB ahead and stops; when it goes on, what follows is gone."""
    from kafka import KafkaAdminClient, TopicPartition

    name, sink = topic(), kafka.sink()
    sink.send(name, [b"%02d" % number * (SIZE // 2) for number in range(80)])
    sink.flush()

    def forget(before: int) -> None:
        with KafkaAdminClient(bootstrap_servers=kafka.servers) as admin:
            admin.delete_records({TopicPartition(name, 0): before})

    with closing(TopicHistory(kafka, name)) as found:
        assert found.read([Range(0, 0, 2)]).offsets == [0, 1]
        forget(60)
        got = found.read([Range(0, 70, 72)])
        assert got.offsets == [70, 71]
        assert [value[:4] for value in got.values if value] == [b"7070", b"7171"]
    again, gone = TopicHistory(kafka, name), "offsets 50 to 59 are needed again and were del"
    with closing(again), pytest.raises(HistoryError, match=gone):
        again.read([Range(0, 50, 70)])
