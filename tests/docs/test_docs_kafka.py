"""What the documentation shows of Kafka runs: each page by itself, see `doc_pages`."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.stream.kafka.connection import KafkaConnection
from headrace.stream.process.ports import HOST, free_port
from tests.support import doc_pages

pytestmark = pytest.mark.kafka

PAGES = [page for page in doc_pages.PAGES if page.name in doc_pages.KAFKA]
ALONE = [page for page in PAGES if "headrace up" in page.read_text("utf-8")]
SHARED = [page for page in PAGES if page not in ALONE]


@pytest.mark.parametrize("page", ALONE, ids=lambda page: page.name)
def test_what_a_page_shows_with_a_kafka_of_its_own_runs(page: Path, tmp_path: Path) -> None:
    port = str(free_port())
    doc_pages.run(page, tmp_path, PORT=port, KAFKA_BOOTSTRAP=f"{HOST}:{port}")


@pytest.mark.parametrize("page", SHARED, ids=lambda page: page.name)
def test_what_a_page_shows_of_kafka_runs(
    page: Path, kafka: KafkaConnection, tmp_path: Path
) -> None:
    doc_pages.run(page, tmp_path, KAFKA_BOOTSTRAP=kafka.servers)
