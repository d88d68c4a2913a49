"""DeviceService: what stands in the lab, and what operators keep out of it."""

from __future__ import annotations

import time
from typing import Any

import grpc

from coordinator import wire
from coordinator.core.errors import NotFound
from coordinator.core.events import ReadmitRequested
from coordinator.core.explain import offline_detail
from coordinator.core.fleet import HOUR_US, busy_after
from coordinator.core.model import Device, DeviceHold, DeviceId, JobId
from coordinator.engine import Engine
from qgjob.v1 import device_pb2, device_service_pb2, device_service_pb2_grpc


class DeviceService(device_service_pb2_grpc.DeviceServiceServicer):
    """Devices, from memory: the engine knows them all."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ListDevices(
        self, request: device_service_pb2.ListDevicesRequest, context: object = None
    ) -> device_service_pb2.ListDevicesResponse:
        """Return a page of devices by id."""
        size = wire.page_size(request.page_size, wire.MAX_PAGE)
        devices = self._engine.scheduler.ledger.fleet.devices
        ids = [device_id for device_id in sorted(devices) if device_id > request.page_token]
        token = ids[size - 1] if len(ids) > size else ""
        return device_service_pb2.ListDevicesResponse(
            devices=[self._device_out(devices[device_id]) for device_id in ids[:size]], next_page_token=token
        )

    async def GetDevice(
        self, request: device_service_pb2.GetDeviceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> device_service_pb2.GetDeviceResponse:
        """Return one device."""
        return device_service_pb2.GetDeviceResponse(device=self._device_out(self._device(request.device_id)))

    async def QuarantineDevice(
        self, request: device_service_pb2.QuarantineDeviceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> device_service_pb2.QuarantineDeviceResponse:
        """Keep new work off a device with which something is wrong."""
        await self._engine.submit(wire.hold_requested(request.device_id, DeviceHold.QUARANTINE, request.reason))
        return device_service_pb2.QuarantineDeviceResponse(device=self._device_out(self._device(request.device_id)))

    async def DrainDevice(
        self, request: device_service_pb2.DrainDeviceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> device_service_pb2.DrainDeviceResponse:
        """Keep new work off a device that is needed for something else."""
        await self._engine.submit(wire.hold_requested(request.device_id, DeviceHold.DRAIN, request.reason))
        return device_service_pb2.DrainDeviceResponse(device=self._device_out(self._device(request.device_id)))

    async def ReadmitDevice(
        self, request: device_service_pb2.ReadmitDeviceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> device_service_pb2.ReadmitDeviceResponse:
        """Let a held device work again."""
        device = DeviceId(request.device_id)
        await self._engine.submit(ReadmitRequested(device=device, host_is_gone=request.host_is_gone))
        return device_service_pb2.ReadmitDeviceResponse(device=self._device_out(self._device(request.device_id)))

    def _device(self, device_id: str) -> Device:
        device = self._engine.scheduler.ledger.fleet.devices.get(DeviceId(device_id))
        if device is None:
            raise NotFound("device", device_id)
        return device

    def _device_out(self, device: Device) -> device_pb2.Device:
        ledger = self._engine.scheduler.ledger
        lease = ledger.fleet.leases.get(device.lease) if device.lease is not None else None
        job: JobId | None = None
        wall_us = time.time_ns() // 1_000
        busy_us = busy_after(device, wall_us, wall_us)
        if lease is not None:
            running = (attempt for attempt in lease.attempts if ledger.attempts[attempt].start_us is not None)
            job = next((ledger.attempts[attempt].job for attempt in running), None)
            busy_us = busy_after(device, lease.grant_us, wall_us)
        message = wire.device_out(
            device,
            job=job,
            utilisation_ppm=busy_us * 1_000_000 // HOUR_US,
            contested_by=ledger.contests.of_device(device.id),
        )
        message.facts.reason = offline_detail(ledger, device) or message.facts.reason
        return message
