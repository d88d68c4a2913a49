from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.storage import Directory, Storage
from coordinator.storage.s3 import S3
from tests.s3 import Bucket, running_s3

MakeStorage = Callable[[], Storage]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with running_s3() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint: str) -> Bucket:
    return Bucket(s3_endpoint, f"lab-{uuid.uuid4().hex}")


@pytest.fixture(params=["directory", "s3"])
def kind(request: pytest.FixtureRequest) -> str:
    """A kind of storage; a test that looks at files names its own."""
    return str(request.param)


@pytest.fixture
def make_storage(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> MakeStorage:
    """Opens the same storage, as often as it is asked to."""
    if kind == "directory":
        return lambda: Directory(tmp_path, sync_interval_s=0.001)
    bucket: Bucket = request.getfixturevalue("bucket")
    return lambda: S3(bucket.url, settings=bucket.settings, sync_interval_s=0.001)
