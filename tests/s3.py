"""An S3 server on loopback for the tests: moto, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

KEYS = {"access_key_id": "lab", "secret_access_key": "secret", "region": "us-east-1"}
PROGRAM = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%s" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


class Bucket:
    """A bucket, and how it is reached."""

    def __init__(self, endpoint: str, name: str) -> None:
        """Make it."""
        request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 200
        self.url = f"s3://{name}/logs-of-the-lab"
        self.settings = {**KEYS, "endpoint": endpoint}
        self.env = {f"AWS_{key.upper()}": value for key, value in self.settings.items()}


@contextmanager
def running_s3() -> Iterator[str]:
    """A server that is gone at the end; yields its endpoint."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("")
