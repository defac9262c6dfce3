"""An archive as a Delta table: offsets are application transactions, one for each partition."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa

from headrace.stream.archive.tables import (
    SCHEMA,
    Offsets,
    check_columns,
    check_topic,
    one_line,
    properties,
)
from headrace.stream.errors import UsageError


class DeltaArchive:
    """Keep a topic's records in a Delta table: an `ArchiveTable`.

    Args:
        place: a directory, or a URL that Delta's storage knows (s3, gs, abfs, with the settings in
            the environment).

    Raises:
        UsageError: the package deltalake is not installed.
    """

    def __init__(self, place: str, topic: str) -> None:
        try:
            import deltalake
        except ImportError as error:
            wanted = "pip install 'headrace[delta]'"
            raise UsageError(f"a Delta table needs {wanted}: {error}") from error
        self._delta, self._place, self._topic = deltalake, place, topic
        plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        self._options = {"AWS_ALLOW_HTTP": "true"} if plain and "://" in place else None
        self._table: Any = None

    def reached(self, partitions: Iterable[int]) -> Offsets:
        """Return the versions of the application transactions; see `ArchiveTable`."""
        with _one_line(self._place, "read"):
            if not self._delta.DeltaTable.is_deltatable(self._place, self._options):
                self._table = None
                return {}
            self._table = self._delta.DeltaTable(self._place, storage_options=self._options)
            columns = pa.schema(self._table.schema())
            check_columns(self._place, columns)
            check_topic(self._place, self._table.metadata().configuration, self._topic)
            found = {p: self._table.transaction_version(self._application(p)) for p in partitions}
        return {partition: at for partition, at in found.items() if at is not None}

    def append(self, rows: pa.Table, reached: Offsets, topic_id: str) -> bool:
        """Commit rows and offsets; see `ArchiveTable`."""
        if self._table is None:
            self._create(topic_id)
            return False
        told = self._table.metadata().configuration
        check_topic(self._place, told, self._topic, topic_id)
        commit = self._delta.CommitProperties(
            app_transactions=[
                self._delta.Transaction(self._application(partition), at)
                for partition, at in sorted(reached.items())
            ],
            max_commit_retries=0,  # after a commit of others the offsets have to be read again
        )
        try:
            with _one_line(self._place, "written", self._delta.exceptions.CommitFailedError):
                self._delta.write_deltalake(
                    self._table, rows, mode="append", commit_properties=commit
                )
        except self._delta.exceptions.CommitFailedError:
            return False
        return True

    def _create(self, topic_id: str) -> None:
        """Make the table; of several who do, all but one may find that it is there."""
        with _one_line(self._place, "made"):
            try:
                self._delta.DeltaTable.create(
                    self._place,
                    SCHEMA,
                    mode="error",
                    partition_by=["date"],
                    name=self._topic,
                    configuration=properties(self._topic, topic_id),
                    storage_options=self._options,
                    commit_properties=self._delta.CommitProperties(max_commit_retries=0),
                    raise_if_key_not_exists=False,
                )
            except self._delta.exceptions.DeltaError:
                if not self._delta.DeltaTable.is_deltatable(self._place, self._options):
                    raise

    def _application(self, partition: int) -> str:
        return f"headrace/{self._topic}/{partition}"


def _one_line(place: str, what: str, *but: type[Exception]) -> AbstractContextManager[None]:
    from deltalake.exceptions import DeltaError

    return one_line(place, what, DeltaError, but=but)
