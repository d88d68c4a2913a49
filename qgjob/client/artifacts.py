"""What jobs left behind, for a client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc

from qgjob.client.connection import CALL_TIMEOUT_S, Connection
from qgjob.errors import error_of, is_passing

if TYPE_CHECKING:
    # Only some commands use them.
    from qgjob.v1.artifact_service_pb2 import FetchArtifactResponse, ListArtifactsResponse


class ArtifactClient(Connection):
    """Lists artifacts and reads their bytes."""

    def list_artifacts(self, job_id: int) -> ListArtifactsResponse:
        """Return what the attempts of a job left behind, by attempt and name, all of it in one answer."""
        from qgjob.v1.artifact_service_pb2 import ListArtifactsRequest, ListArtifactsResponse
        from qgjob.v1.artifact_service_pb2_grpc import ArtifactServiceStub

        whole = ListArtifactsResponse()

        def read(size: int, token: str) -> ListArtifactsResponse:
            request = ListArtifactsRequest(job_id=job_id, page_size=size, page_token=token)
            page = ArtifactServiceStub(self._channel).ListArtifacts(request, timeout=CALL_TIMEOUT_S)
            if page.HasField("retention"):
                whole.retention.CopyFrom(page.retention)
            return page

        whole.artifacts.extend(self._pages(read, lambda page: page.artifacts))
        return whole

    def fetch_artifact(
        self, job_id: int, attempt_number: int, name: str, *, offset: int = 0
    ) -> Iterator[FetchArtifactResponse]:
        """Yield the pieces of an artifact from a byte on, over one stream, which is not opened again when it breaks.

        See `qgjob.artifacts`, which brings whole files.
        """
        from qgjob.v1.artifact_service_pb2 import FetchArtifactRequest
        from qgjob.v1.artifact_service_pb2_grpc import ArtifactServiceStub

        request = FetchArtifactRequest(job_id=job_id, attempt_number=attempt_number, name=name, offset=offset)
        channel = self._channel
        call = ArtifactServiceStub(channel).FetchArtifact(request)
        try:
            yield from call
        except grpc.RpcError as error:
            if is_passing(error):
                self._coordinators.leave(channel)
            raise error_of(error, self.target) from error
        finally:
            call.cancel()
