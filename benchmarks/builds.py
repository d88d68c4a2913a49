"""Measures how fast a build goes up beside a bare stream, whether it survives a cut, and how it reaches ten agents."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc

from qgjob.channel import open_channel
from qgjob.client import Client
from qgjob.uploads import CHUNK_BYTES, upload_file
from qgjob.v1.blob_service_pb2 import BlobChunk, UploadBlobRequest, UploadBlobResponse
from tests.e2e.grid import PATIENT, Grid, running_grid

MIB = 1_024 * 1_024
BUILD_BYTES = 300_000_000
AGENTS = 10
TRIES = 3
"""Of both kinds in turns; the best of each counts, for the machine has other work."""
BARE_SERVER = """
import asyncio
import grpc
from coordinator.server import OPTIONS
from qgjob.v1 import blob_service_pb2, blob_service_pb2_grpc

class Bare(blob_service_pb2_grpc.BlobServiceServicer):
    async def UploadBlob(self, request_iterator, context):
        size = 0
        while (message := await context.read()) is not grpc.aio.EOF:
            size += len(message.chunk.data)
        return blob_service_pb2.UploadBlobResponse(size=size)

async def main():
    server = grpc.aio.server(options=OPTIONS)
    blob_service_pb2_grpc.add_BlobServiceServicer_to_server(Bare(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()

asyncio.run(main())
"""


def run(is_telling: bool) -> tuple[dict[str, Any], dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder, running_grid(Path(folder) / "grid") as grid:
        grid.coordinator(*PATIENT)
        bare_s, upload_s = _speeds(grid, Path(folder), is_telling)
        cut = _cut(grid, Path(folder))
        spread = _spread(grid, Path(folder))
    ratios = {
        "upload_over_bare_stream": round(bare_s / upload_s, 3),
        "cut_sent_again": cut.pop("sent_again"),
        "fetches_per_agent": spread.pop("fetches_per_agent"),
    }
    metrics = {
        "build_mb": BUILD_BYTES / 1e6,
        "bare_mb_per_s": round(BUILD_BYTES / bare_s / 1e6, 1),
        "upload_mb_per_s": round(BUILD_BYTES / upload_s / 1e6, 1),
        **cut,
        **spread,
    }
    return metrics, ratios


def _speeds(grid: Grid, folder: Path, is_telling: bool) -> tuple[float, float]:
    """Return the best time of a bare stream and of an upload with all that belongs to it."""
    bare, uploads = [], []
    with _bare_server() as address, closing(open_channel(address)) as channel, Client(grid.address) as client:
        for number in range(TRIES):
            build = _build(folder / "build.apk")
            bare.append(_stream(channel, build))
            began = time.perf_counter()
            upload_file(client, build)
            uploads.append(time.perf_counter() - began)
            if is_telling:
                print(f"try {number + 1}: bare {bare[-1]:.2f} s, upload {uploads[-1]:.2f} s", file=sys.stderr)
    return min(bare), min(uploads)


@contextmanager
def _bare_server() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", BARE_SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def _stream(channel: grpc.Channel, build: Path) -> float:
    """Return the time in which a file goes over a stream whose other end forgets it."""
    send = channel.stream_unary(
        "/qgjob.v1.BlobService/UploadBlob",
        request_serializer=UploadBlobRequest.SerializeToString,
        response_deserializer=UploadBlobResponse.FromString,
    )

    def messages() -> Iterator[UploadBlobRequest]:
        with build.open("rb", buffering=0) as file:
            while data := file.read(CHUNK_BYTES):
                yield UploadBlobRequest(chunk=BlobChunk(data=data))

    began = time.perf_counter()
    answer = send(messages())
    took_s = time.perf_counter() - began
    assert answer.size == build.stat().st_size
    return took_s


def _cut(grid: Grid, folder: Path) -> dict[str, Any]:
    """Kill the coordinator in the middle of an upload, start it again, and see what had to be sent once more."""
    build = _build(folder / "cut.apk")
    coordinator = next(program for program in grid._programs if program.name == "coordinator")
    was_cut = False
    sent = 0
    last = 0

    def tell(done: int, size: int) -> None:
        nonlocal was_cut, sent, last
        sent += max(0, done - last) if done > last else CHUNK_BYTES
        last = done
        if done > size // 2 and not was_cut:
            was_cut = True
            coordinator.kill()
            grid.coordinator(*PATIENT)

    began = time.perf_counter()
    with Client(grid.address) as client:
        blob = upload_file(client, build, tell)
    assert was_cut
    assert blob.digest == hashlib.sha256(build.read_bytes()).hexdigest()
    return {"cut_upload_s": round(time.perf_counter() - began, 2), "sent_again": round(sent / blob.size - 1, 3)}


def _spread(grid: Grid, folder: Path) -> dict[str, Any]:
    """Let ten agents with two devices each test one build, and count how often it was fetched."""
    build = _build(folder / "spread.apk")
    names = [f"host-{number}" for number in range(AGENTS)]
    options = ("--simulate", "emulator=2", "--sim-install-seconds", "0", "--sim-test-seconds", "0")
    agents = [grid.agent(name, *options) for name in names]
    upload = ("builds", "upload", "--org-id", "qualgent", "--app-version-id", "spread", str(build))
    grid.run(*upload, seconds=300)
    began = time.perf_counter()
    jobs = []
    for device in grid.json("devices", "list"):
        jobs += grid.submit("tests/login.spec.ts", app="spread", options=("--selector", f"id={device['id']}"))
    grid.run("jobs", "wait", *map(str, jobs), seconds=600)
    took_s = time.perf_counter() - began
    fetches = [agent.diagnostics.read_text().count("build_fetched") for agent in agents]
    assert len(jobs) == 2 * AGENTS
    assert min(fetches) > 0, fetches
    return {"agents": AGENTS, "fetches_per_agent": max(fetches), "spread_s": round(took_s, 1)}


def _build(path: Path) -> Path:
    """Write a build that nobody has seen."""
    with path.open("wb") as file:
        for _ in range(0, BUILD_BYTES, MIB):
            file.write(os.urandom(min(MIB, BUILD_BYTES - file.tell())))
    return path
