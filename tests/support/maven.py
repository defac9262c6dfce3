"""Jars of Maven's for the tests, fetched once like Kafka, and checked."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from headrace.stream.process.paths import cache_dir, hold_lock


def ensure_jar(folder: str, coordinates: str, sha256: str, *, classifier: str = "") -> Path:
    """Return a jar in a folder of the cache; fetch it if it is not there.

    Args:
        coordinates: `group:artifact:version`.

    Raises:
        OSError, RuntimeError, ImportError: it cannot be fetched, or is not the pinned one.
    """
    directory = cache_dir(folder)
    directory.mkdir(parents=True, exist_ok=True)
    group, name, version = coordinates.split(":")
    jar = directory / f"{name}-{version}.jar"
    with hold_lock(directory / "lock", wait_s=600.0):
        if not _is_intact(jar, sha256):
            from jgo.maven import MavenContext

            with tempfile.TemporaryDirectory(dir=directory) as scratch:
                project = MavenContext(repo_cache=Path(scratch)).project(group, name)
                artifact = project.at_version(version).artifact(classifier=classifier)
                Path(artifact.resolve()).replace(jar)
        if not _is_intact(jar, sha256):
            raise RuntimeError(f"{jar.name} is not the pinned one")
    return jar


def _is_intact(jar: Path, sha256: str) -> bool:
    return jar.exists() and hashlib.sha256(jar.read_bytes()).hexdigest() == sha256
