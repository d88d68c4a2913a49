"""Fetches blobs from the coordinator: the only code of the agent that does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import grpc

from agent import wire
from agent.core.model import LeaseKey
from qgjob.errors import ClientError
from qgjob.v1 import blob_service_pb2, blob_service_pb2_grpc

FINAL = {
    grpc.StatusCode.NOT_FOUND: "the coordinator has it no more",
    grpc.StatusCode.INVALID_ARGUMENT: "the coordinator does not understand what is asked for",
    grpc.StatusCode.UNIMPLEMENTED: "the coordinator is of a release without builds",
}
"""What no other try can mend."""
FORBIDDEN = frozenset({grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION})


class TransferBroken(Exception):
    """The stream broke off; the same again may go on."""


class TransferForbidden(Exception):
    """The lease does not allow it, or is over."""


class TransferImpossible(Exception):
    """Trying again is pointless; the sentence says why."""


class Transfer:
    """Reads blobs, under leases that name them."""

    def __init__(self, channel: Callable[[], grpc.aio.Channel], boot_id: str) -> None:
        """Take the way to the coordinator of the moment, and what proves to it who asks."""
        self._channel = channel
        self._boot_id = boot_id

    async def read(self, digest: str, key: LeaseKey, offset: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a blob from `offset` on.

        Raises:
            TransferBroken: The stream broke off.
            TransferForbidden: The lease does not allow it, or is over.
            TransferImpossible: Trying again is pointless.
        """
        request = blob_service_pb2.FetchBlobRequest(
            key=wire.key_out(key), boot_id=self._boot_id, digest=digest, offset=offset
        )
        size = offset
        try:
            async for piece in blob_service_pb2_grpc.BlobServiceStub(self._channel()).FetchBlob(request):
                if piece.chunk.offset != offset:
                    raise TransferBroken(f"bytes of {piece.chunk.offset} came instead of {offset}")
                data = piece.chunk.data
                offset += len(data)
                size = piece.size
                yield data
        except grpc.aio.AioRpcError as error:
            raise _meaning(error) from error
        except ClientError as error:  # the token, which is read for each call
            raise TransferBroken(str(error)) from error
        if offset < size:
            raise TransferBroken(f"it ended after {offset} of {size} bytes")


def _meaning(error: grpc.aio.AioRpcError) -> Exception:
    if error.code() in FORBIDDEN:
        return TransferForbidden(error.details() or "")
    if error.code() in FINAL:
        return TransferImpossible(FINAL[error.code()])
    return TransferBroken(f"{error.code().name}: {error.details()}")
