"""The services that answer over HTTP, which a coordinator has while it leads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordinator.services.agent import AgentService
from coordinator.services.artifact import ArtifactService
from coordinator.services.build import BuildService
from coordinator.services.job import JobService
from coordinator.services.lab import DeviceService
from coordinator.services.log import LogService
from coordinator.services.queue import QueueService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Each as gRPC has it."""

    jobs: JobService
    logs: LogService
    queue: QueueService
    devices: DeviceService
    agents: AgentService
    builds: BuildService
    artifacts: ArtifactService


FindServices = Callable[[], Services]
"""Returns them, or raises a refusal while this coordinator may not answer for the lab."""
