"""A small coordinator in this very process that does what a test tells it, and drops streams where it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status.rpc_status import to_status

from qgjob.v1 import job_service_pb2 as jobs
from qgjob.v1 import log_service_pb2 as logs
from qgjob.v1 import queue_service_pb2
from qgjob.v1.job_pb2 import Job
from qgjob.v1.log_pb2 import LogChunk, LogCut
from qgjob.v1.queue_pb2 import QueueStatus

Watch = Callable[[jobs.WatchJobsRequest], Iterator[Job | None]]
"""Jobs; None for the word that all have been shown."""
Follow = Callable[[logs.FollowLogsRequest], Iterator[LogChunk | LogCut]]


class Dropped(Exception):
    """Raised by a test's stream: the connection breaks here."""


class Refused(Exception):
    """Raised by a test's answer: the coordinator refuses with this code and reason."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str, **fields: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.fields = fields

    def abort(self, context: grpc.ServicerContext) -> NoReturn:
        detail = AnyMessage()
        detail.Pack(ErrorInfo(reason=self.reason, domain="qgjob", metadata=self.fields))
        context.abort_with_status(to_status(Status(code=self.code.value[0], message=str(self), details=[detail])))


class StandIn:
    """Answers one call after the other from lists; remembers what was asked."""

    def __init__(self) -> None:
        self.address = ""
        self.watches: list[Watch] = []
        self.follows: list[Follow] = []
        self.submits: list[Callable[[jobs.SubmitJobsRequest], jobs.SubmitJobsResponse]] = []
        self.cancels: list[Callable[[jobs.CancelJobsRequest], jobs.CancelJobsResponse]] = []
        """Without any, jobs are returned as they are asked for."""
        self.asked: list[
            jobs.WatchJobsRequest | logs.FollowLogsRequest | jobs.SubmitJobsRequest | jobs.CancelJobsRequest
        ] = []
        self.stored: list[Job] = []
        """What every list of jobs answers."""
        self.lists: list[jobs.ListJobsRequest] = []
        """What was asked of lists of jobs."""
        self.queues: list[QueueStatus] = []
        """What the queue is like, look after look; the last stays."""
        self.calls: list[str] = []
        """The method of every call, whether it was answered or not."""
        self.heard = threading.Event()
        """Set by a test's answer, for the test to wait for."""
        self.gone_on = threading.Event()
        """Set by a test, for its answer to wait for."""
        self.released = threading.Event()
        """Set at the end of the test: streams that hang end."""
        self._server: grpc.Server | None = None

    def begin(self) -> None:
        """Serve: on a free port, or where it served before it died."""
        options = (("grpc.so_reuseport", 0),)
        self._server = grpc.server(ThreadPoolExecutor(8), options=options, interceptors=[_Record(self.calls)])
        self._server.add_generic_rpc_handlers(_handlers(self))
        self.address = f"127.0.0.1:{self._server.add_insecure_port(self.address or '127.0.0.1:0')}"
        self._server.start()

    def die(self) -> None:
        """Let every connection break, and nobody answer any more."""
        assert self._server is not None
        self._server.stop(0).wait(10)

    def submit(self, request: jobs.SubmitJobsRequest, context: grpc.ServicerContext) -> jobs.SubmitJobsResponse:
        self.asked.append(request)
        try:
            return self.submits.pop(0)(request)
        except Dropped:
            context.abort(grpc.StatusCode.UNAVAILABLE, "dropped")
        except Refused as refusal:
            refusal.abort(context)

    def list_jobs(self, request: jobs.ListJobsRequest, context: grpc.ServicerContext) -> jobs.ListJobsResponse:
        self.lists.append(request)
        return jobs.ListJobsResponse(jobs=self.stored)

    def queue(
        self, request: queue_service_pb2.GetQueueStatusRequest, context: grpc.ServicerContext
    ) -> queue_service_pb2.GetQueueStatusResponse:
        status = self.queues.pop(0) if len(self.queues) > 1 else self.queues[0]
        return queue_service_pb2.GetQueueStatusResponse(status=status)

    def cancel(self, request: jobs.CancelJobsRequest, context: grpc.ServicerContext) -> jobs.CancelJobsResponse:
        self.asked.append(request)
        try:
            if self.cancels:
                return self.cancels.pop(0)(request)
        except Refused as refusal:
            refusal.abort(context)
        return jobs.CancelJobsResponse(jobs=[Job(id=job_id) for job_id in request.job_ids])

    def watch(self, request: jobs.WatchJobsRequest, context: grpc.ServicerContext) -> Iterator[jobs.WatchJobsResponse]:
        self.asked.append(request)
        try:
            for job in self.watches.pop(0)(request):
                yield jobs.WatchJobsResponse(job=job, caught_up=job is None)
        except Dropped:
            context.abort(grpc.StatusCode.UNAVAILABLE, "dropped")
        except Refused as refusal:
            refusal.abort(context)

    def follow(
        self, request: logs.FollowLogsRequest, context: grpc.ServicerContext
    ) -> Iterator[logs.FollowLogsResponse]:
        self.asked.append(request)
        try:
            for piece in self.follows.pop(0)(request):
                if isinstance(piece, LogChunk):
                    yield logs.FollowLogsResponse(chunk=piece)
                else:
                    yield logs.FollowLogsResponse(cut=piece)
        except Dropped:
            context.abort(grpc.StatusCode.UNAVAILABLE, "dropped")


class _Record(grpc.ServerInterceptor):
    """Remembers which methods are called."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        self._calls.append(handler_call_details.method)
        return continuation(handler_call_details)


def _handlers(stand_in: StandIn) -> list[grpc.GenericRpcHandler]:
    """What a stand-in answers; every other call is UNIMPLEMENTED."""
    of_jobs: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "SubmitJobs": grpc.unary_unary_rpc_method_handler(
            stand_in.submit, jobs.SubmitJobsRequest.FromString, jobs.SubmitJobsResponse.SerializeToString
        ),
        "ListJobs": grpc.unary_unary_rpc_method_handler(
            stand_in.list_jobs, jobs.ListJobsRequest.FromString, jobs.ListJobsResponse.SerializeToString
        ),
        "CancelJobs": grpc.unary_unary_rpc_method_handler(
            stand_in.cancel, jobs.CancelJobsRequest.FromString, jobs.CancelJobsResponse.SerializeToString
        ),
        "WatchJobs": grpc.unary_stream_rpc_method_handler(
            stand_in.watch, jobs.WatchJobsRequest.FromString, jobs.WatchJobsResponse.SerializeToString
        ),
    }
    of_logs: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "FollowLogs": grpc.unary_stream_rpc_method_handler(
            stand_in.follow, logs.FollowLogsRequest.FromString, logs.FollowLogsResponse.SerializeToString
        )
    }
    of_queue: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "GetQueueStatus": grpc.unary_unary_rpc_method_handler(
            stand_in.queue,
            queue_service_pb2.GetQueueStatusRequest.FromString,
            queue_service_pb2.GetQueueStatusResponse.SerializeToString,
        )
    }
    return [
        grpc.method_handlers_generic_handler("qgjob.v1.QueueService", of_queue),
        grpc.method_handlers_generic_handler("qgjob.v1.JobService", of_jobs),
        grpc.method_handlers_generic_handler("qgjob.v1.LogService", of_logs),
    ]


@contextmanager
def running_stand_in() -> Iterator[StandIn]:
    """A stand-in that serves on a free port."""
    stand_in = StandIn()
    stand_in.begin()
    try:
        yield stand_in
    finally:
        stand_in.released.set()
        stand_in.die()
