"""The jars of the embedded broker: fetched once, checked against pinned sums before every use."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from headrace.stream.errors import BrokerError
from headrace.stream.process.paths import cache_dir, hold_lock

KAFKA_VERSION = "4.3.1"
MISSING_EXTRA = "install headrace[local] or set KAFKA_BOOTSTRAP to a Kafka that runs already"
_OTHER_START_S = 600.0

Progress = Callable[[int, int], None]
"""Called with the bytes fetched so far and the bytes to fetch."""


@dataclass(frozen=True)
class Jar:
    """Name one file of the broker and what it must be, byte for byte."""

    coordinate: str  # group:artifact:version
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"

    def is_intact(self, path: Path) -> bool:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except FileNotFoundError:
            return False


def pinned_jars() -> tuple[Jar, ...]:
    """Read the jars that make up the broker, in classpath order."""
    lines = (
        resources.files("headrace.stream.broker")
        .joinpath("jars.sha256")
        .read_text("ascii")
        .splitlines()
    )
    rows = (line.split() for line in lines if not line.startswith("#"))
    return tuple(Jar(coordinate, sha256, int(size)) for sha256, size, coordinate in rows)


def jar_dir() -> Path:
    """Return where the jars are kept: one directory for each Kafka, in the user's cache."""
    return cache_dir(f"kafka-{KAFKA_VERSION}")


def ensure_jars(on_progress: Progress | None = None) -> list[Path]:
    """Return the classpath, every jar of it checked; fetch once what is missing or changed.

    Args:
        on_progress: called from this thread while jars are fetched, never otherwise.

    Raises:
        BrokerError: a jar cannot be fetched, or is not the pinned one even when fetched anew.
    """
    directory, jars = jar_dir(), pinned_jars()

    def wrong() -> list[Jar]:
        return [jar for jar in jars if not jar.is_intact(directory / jar.name)]

    if wrong():
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with hold_lock(directory / "lock", wait_s=_OTHER_START_S):
                _fetch(wrong(), directory, on_progress)  # another start may have done it meanwhile
        except TimeoutError:
            raise BrokerError(
                f"another start has been fetching Kafka into {directory} for "
                f"{_OTHER_START_S:.0f} s: end it and run again"
            ) from None
        except OSError as error:
            raise BrokerError(f"cannot keep Kafka in {directory}: {error.strerror}") from error
    return [directory / jar.name for jar in jars]


def _fetch(jars: list[Jar], directory: Path, on_progress: Progress | None) -> None:
    total, done = sum(jar.size_bytes for jar in jars), 0
    with (
        tempfile.TemporaryDirectory(dir=directory, prefix="fetch-") as scratch,
        ThreadPoolExecutor(4) as pool,
    ):
        fetching = {pool.submit(_download, jar, Path(scratch)): jar for jar in jars}
        try:
            for future in as_completed(fetching):
                jar = fetching[future]
                _keep(jar, future, directory)
                done += jar.size_bytes
                if on_progress:
                    on_progress(done, total)
        finally:
            pool.shutdown(cancel_futures=True)


def _keep(jar: Jar, fetching: Future[Path], directory: Path) -> None:
    try:
        fetched = fetching.result()
    except (OSError, RuntimeError) as error:
        raise _fetch_error(jar, directory, error) from error
    if not jar.is_intact(fetched):
        raise BrokerError(
            f"broken jar {jar.name}: fetched anew, its sha256 is still not the pinned "
            f"{jar.sha256[:12]}…; delete {directory} and run again"
        )
    fetched.replace(directory / jar.name)


def _download(jar: Jar, scratch: Path) -> Path:
    """Fetch one jar by its coordinate into `scratch`, a Maven repository of its own.

    Never the user's own repository: a jar broken there would be handed out again and again.
    """
    try:
        from jgo.maven import MavenContext
    except ImportError:
        raise BrokerError(f"fetching Kafka needs jgo: {MISSING_EXTRA}") from None
    group, artifact, version = jar.coordinate.split(":")
    context = MavenContext(repo_cache=scratch)
    path: Path = context.project(group, artifact).at_version(version).artifact().resolve()
    return path


def _fetch_error(jar: Jar, directory: Path, error: Exception) -> BrokerError:
    why = type(error).__name__
    if (directory / jar.name).exists():
        return BrokerError(
            f"broken jar {jar.name}: its sha256 is not the pinned {jar.sha256[:12]}… and it cannot "
            f"be fetched anew ({why}); delete {directory} and run again with a network"
        )
    return BrokerError(
        f"cannot fetch {jar.name} ({why}): the embedded Kafka needs the network once, the first "
        "time; connect and run again, or set KAFKA_BOOTSTRAP to a Kafka that runs already"
    )
