"""An archive as an Iceberg table: offsets are a property of each snapshot that we add."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.stream.archive.tables import Offsets, check_columns, check_topic, one_line, properties
from headrace.stream.errors import HistoryError, UsageError

NAMESPACE = "headrace"
OFFSETS = "headrace.offsets"


class IcebergArchive:
    """Keep a topic's records in an Iceberg table: an `ArchiveTable`.

    The table is called headrace.<topic>, with "_" for what is no letter, digit or "_".

    Args:
        place: a directory, which holds the tables and, in catalog.db, their catalog (SQLite).

    Raises:
        UsageError: the package pyiceberg is not installed, or the place is a URL.
    """

    def __init__(self, place: str, topic: str) -> None:
        try:
            from pyiceberg.catalog.sql import SqlCatalog
        except ImportError as error:
            wanted = "pip install 'headrace[iceberg]'"
            raise UsageError(f"an Iceberg table needs {wanted}: {error}") from error
        if "://" in place:
            raise UsageError(f"{place}: expected a directory: SQLite keeps the catalog in a file")
        home = Path(place).absolute()
        self._topic, self._place = topic, str(home)
        self._name = (NAMESPACE, re.sub(r"\W", "_", topic, flags=re.ASCII))
        with _one_line(self._place, "used"):
            home.mkdir(parents=True, exist_ok=True)
            self._catalog = SqlCatalog(
                NAMESPACE, uri=f"sqlite:///{home / 'catalog.db'}", warehouse=home.as_uri()
            )
            self._catalog.create_namespace_if_not_exists(NAMESPACE)
        self._table: Any = None

    def reached(self, partitions: Iterable[int]) -> Offsets:
        """Return what the newest snapshot of ours says; see `ArchiveTable`."""
        from pyiceberg.exceptions import NoSuchTableError

        with _one_line(self._place, "read"):
            try:
                self._table = self._catalog.load_table(self._name)
            except NoSuchTableError:
                self._table = None
                return {}
            check_columns(self._place, self._table.schema().as_arrow())
            check_topic(self._place, self._table.properties, self._topic)
            return self._offsets()

    def append(self, rows: pa.Table, reached: Offsets, topic_id: str) -> bool:
        """Commit rows and offsets; see `ArchiveTable`."""
        from pyiceberg.exceptions import CommitFailedException

        if self._table is None:
            self._create(topic_id)
            return False
        check_topic(self._place, self._table.properties, self._topic, topic_id)
        # After a commit of others pyiceberg would add the rows to that: offsets come first. This
        # is of the table as loaded; what is stored, and others' own retries, stay.
        self._table.metadata.properties["commit.retry.num-retries"] = "0"
        told = {OFFSETS: json.dumps({str(p): at for p, at in sorted(reached.items())})}
        try:
            with _one_line(self._place, "written", CommitFailedException):
                self._table.append(rows, snapshot_properties=told)
        except CommitFailedException:
            return False
        return True

    def _create(self, topic_id: str) -> None:
        """Make the table; of several who do, all but one find that it is there."""
        from pyiceberg.exceptions import TableAlreadyExistsError
        from pyiceberg.partitioning import PartitionField, PartitionSpec
        from pyiceberg.transforms import IdentityTransform

        by_date = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "date"))
        told = properties(self._topic, topic_id)
        with _one_line(self._place, "made"), suppress(TableAlreadyExistsError):
            self._catalog.create_table(
                self._name, _schema(), partition_spec=by_date, properties=told
            )

    def _offsets(self) -> Offsets:
        """Look for the newest snapshot of ours, behind those of others, such as a compaction's."""
        snapshot = newest = self._table.current_snapshot()
        while snapshot:
            if told := snapshot.summary and snapshot.summary.additional_properties.get(OFFSETS):
                return {int(p): int(at) for p, at in json.loads(told).items()}
            parent = snapshot.parent_snapshot_id
            snapshot = parent and self._table.snapshot_by_id(parent)
        if newest:
            raise HistoryError(
                f"{self._place}: no snapshot of {'.'.join(self._name)} says {OFFSETS} any more, by "
                "which this command goes on: keep one when snapshots are expired; export to "
                "another place"
            )
        return {}


def _schema() -> Any:
    from pyiceberg import types
    from pyiceberg.schema import Schema

    return Schema(
        types.NestedField(1, "date", types.DateType(), required=True),
        types.NestedField(2, "partition", types.IntegerType(), required=True),
        types.NestedField(3, "offset", types.LongType(), required=True),
        types.NestedField(4, "timestamp_ms", types.LongType(), required=True),
        types.NestedField(5, "key", types.BinaryType()),
        types.NestedField(6, "value", types.BinaryType()),
    )


def _one_line(place: str, what: str, *but: type[Exception]) -> AbstractContextManager[None]:
    from sqlalchemy.exc import SQLAlchemyError

    return one_line(place, what, SQLAlchemyError, but=but)
