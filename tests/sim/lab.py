"""The whole lab: it starts the processes, lets the faults strike, and says when everything has come to rest."""

from __future__ import annotations

from coordinator.core.model import DeviceState
from tests.sim.agent import AgentProcess
from tests.sim.coordinator import FAST_COMMIT_US, CoordinatorProcess
from tests.sim.database import Database, Records
from tests.sim.device import Device
from tests.sim.history import CoordinatorPaused, History, Note
from tests.sim.network import Network, Side
from tests.sim.plan import (
    BreakStreams,
    CrashPoint,
    CutPower,
    DeposeCoordinator,
    DrainAgent,
    Fault,
    FreezeAgent,
    FreezeCoordinator,
    HoldAgent,
    HoldDevice,
    JumpClocks,
    KillAgent,
    KillCoordinator,
    LoseHeartbeats,
    Partition,
    Plan,
    PlannedAgent,
    ShareDevice,
    SickenDevice,
    SlowDisk,
    Unplug,
)
from tests.sim.shelf import LogDisk
from tests.sim.spool import Spool
from tests.sim.users import Users
from tests.sim.world import SECOND_US, Act, World

TAKEOVER_US = 10 * SECOND_US
DRAINED_DOWN_US = 2 * SECOND_US
SEEDS_A_RECOVERY_CHECK = 20
LOOK_US = 5 * SECOND_US


class Host:
    """A lab machine: its devices and its disk stay when the agent's process goes."""

    def __init__(self, name: str, devices: list[Device], spool: Spool, planned: PlannedAgent) -> None:
        self.name = name
        self.lanes, self.orgs = planned.lanes, planned.orgs
        self.devices = devices
        self.guests: list[Device] = []
        """Devices of other hosts that are seen here as well."""
        self.spool = spool
        self.boots = 0
        self.agent: AgentProcess | None = None
        self.down_us = DRAINED_DOWN_US
        """How long its agent stays away when it ends by itself."""


class Lab:
    """One seed's world."""

    def __init__(self, plan: Plan) -> None:
        self.world = World(plan.seed)
        self.history = History()
        self.database = Database()
        self.disk = LogDisk()
        self._plan = plan
        self._network = Network(self.world, plan.weather)
        self._slow_until_us = 0
        self._slow_latency_us = 0
        self._coordinators: list[CoordinatorProcess] = []
        self._starts_wanted = 0
        self.users = Users(self.world, self.history, self, plan)
        self._hosts = {
            agent.name: Host(
                agent.name,
                [Device(self.world, self.history, facts, plan.jobs) for facts in agent.devices],
                Spool(self.world, self.history),
                agent,
            )
            for agent in plan.agents
        }

    # Life

    def run(self, bound_us: int) -> bool:
        """Let everything happen. Returns whether it came to rest within the bound after the faults stopped."""
        self._start_coordinator()
        for number, host in enumerate(self._hosts.values()):
            self.world.at(number * SECOND_US, self._boot, host)
        self.users.start()
        for fault in self._plan.faults:
            self.world.at(fault.at_us, self._strike, fault)
        self.world.run_until(self._plan.calm_us)
        self._be_calm()
        end_us = self.world.now_us + bound_us
        is_at_rest = False
        while not is_at_rest and self.world.now_us < end_us:
            self.world.run_until(self.world.now_us + LOOK_US)
            is_at_rest = not self.unrest()
        if (leader := self.leader()) is not None:
            leader.check_whole_state()
        return is_at_rest

    def _be_calm(self) -> None:
        self._note("the faults stop")
        self._network.be_calm()
        self.users.be_calm()
        for coordinator in self._coordinators:
            coordinator.crash_point = None
        for host in self._hosts.values():
            if host.agent is not None:
                host.agent.dies_at_commit = False

    def unrest(self) -> str:
        """Say what has not come to rest, an empty string if all has."""
        records = self.database.records
        if jobs := records.live_jobs():
            return f"job {jobs[0].id} is still {jobs[0].state} ({len(jobs)} in all)"
        if self.users.open_calls:
            return f"{self.users.open_calls} calls of users are not answered"
        for host in self._hosts.values():
            if host.spool.results:
                return f"{host.name} keeps the results of attempts {sorted(host.spool.results)}"
            if host.spool.begun:
                return f"{host.name} knows nothing of the end of attempts {sorted(host.spool.begun)}"
            if host.spool.logs:
                return f"{host.name} keeps the logs of attempts {sorted(host.spool.logs)}"
        for device in records.devices.values():
            if device.state is not DeviceState.IDLE:
                return f"{device.id} is {device.state}"
        return ""

    def _note(self, text: str) -> None:
        self.history.add(Note(self.world.now_us, text))

    # Coordinators

    @property
    def records(self) -> Records:
        return self.database.records

    def leader(self) -> CoordinatorProcess | None:
        """Return the newest coordinator, if it lives."""
        if self._coordinators and self._coordinators[-1].is_alive:
            return self._coordinators[-1]
        return None

    def _start_coordinator(self) -> None:
        coordinator = CoordinatorProcess(
            self.world,
            self.history,
            self.database,
            self.disk,
            self._plan.settings,
            not self._plan.weather.is_raw,
            self,
            self.commit_latency_us,
        )
        coordinator.is_recovery_checked = self._plan.seed % SEEDS_A_RECOVERY_CHECK == 0
        self._coordinators.append(coordinator)

    def coordinator_ended(self, coordinator: CoordinatorProcess, why: str, down_us: int = SECOND_US) -> None:
        """Bury a coordinator; a newest one is started again after a while."""
        if not coordinator.is_alive:
            return
        self._note(f"coordinator of epoch {coordinator.epoch} ends: {why}")
        is_newest = coordinator is self._coordinators[-1]
        coordinator.check_whole_state()
        coordinator.die()
        self._network.forget(coordinator)
        if is_newest:
            self.world.after(down_us, self._replace, coordinator)

    def _replace(self, coordinator: CoordinatorProcess) -> None:
        if coordinator is self._coordinators[-1]:
            self._start_coordinator()

    def commit_latency_us(self) -> int:
        if self.world.now_us < self._slow_until_us:
            return self.world.between(self._slow_latency_us // 2, self._slow_latency_us)
        return self.world.between(*FAST_COMMIT_US)

    # Doors of the agents

    def connect_session(self, host: str, client: Side, opened: Act) -> None:
        leader = self.leader()
        self._network.connect(host, client, leader.accept() if leader is not None else None, opened)

    def connect_logs(self, host: str, client: Side, opened: Act) -> None:
        leader = self.leader()
        self._network.connect(host, client, leader.shelf.side() if leader is not None else None, opened)

    def _boot(self, host: Host) -> None:
        if host.agent is not None and host.agent.is_alive:
            return
        host.boots += 1
        host.down_us = DRAINED_DOWN_US
        host.agent = AgentProcess(
            self.world, self.history, self, host.name, host.boots, host, host.spool, host.lanes, host.orgs
        )
        host.agent.start()

    def agent_exited(self, agent: AgentProcess) -> None:
        self._end_agent(self._hosts[agent.name], self._hosts[agent.name].down_us)

    def _end_agent(self, host: Host, down_us: int) -> None:
        if host.agent is not None and host.agent.is_alive:
            self._note(f"agent {host.agent.boot_id} ends")
            host.agent.die()
            self._network.forget(host.agent)
            self.world.after(down_us, self._boot, host)

    # Faults

    def _strike(self, fault: Fault) -> None:
        self._note(f"FAULT {fault}")
        match fault:
            case KillCoordinator():
                self._kill_coordinator(fault)
            case FreezeCoordinator():
                self._freeze_coordinator(fault.for_us)
            case DeposeCoordinator():
                self._freeze_coordinator(fault.for_us)
                self.world.after(min(TAKEOVER_US, fault.for_us // 2), self._replace, self._coordinators[-1])
            case SlowDisk():
                self._slow_until_us = self.world.now_us + fault.for_us
                self._slow_latency_us = fault.latency_us
            case BreakStreams():
                self._network.break_all()
            case JumpClocks():
                self.world.wall_jump_us += fault.by_us
            case HoldDevice():
                self.users.hold_device(fault)
            case HoldAgent():
                self.users.hold_agent(fault)
            case ShareDevice():
                self._share(fault)
            case _:
                self._strike_host(fault, self._hosts[fault.agent])

    def _kill_coordinator(self, fault: KillCoordinator) -> None:
        leader = self.leader()
        if leader is None:
            return
        if fault.point is CrashPoint.ANYWHERE:
            self.coordinator_ended(leader, "killed", fault.down_us)
        else:
            leader.crash_point = fault.point

    def _freeze_coordinator(self, for_us: int) -> None:
        leader = self.leader()
        if leader is None or leader.is_frozen:
            return
        leader.freeze()
        self._network.miss(leader, for_us)
        now_us = self.world.now_us
        self.history.add(CoordinatorPaused(now_us, leader.epoch, now_us + for_us))
        self.world.after(for_us, leader.thaw)

    def _strike_host(
        self,
        fault: KillAgent | CutPower | FreezeAgent | DrainAgent | LoseHeartbeats | Unplug | SickenDevice | Partition,
        host: Host,
    ) -> None:
        agent = host.agent
        match fault:
            case KillAgent():
                if fault.is_at_commit and agent is not None:
                    host.down_us = fault.down_us
                    agent.dies_at_commit = True
                else:
                    self._end_agent(host, fault.down_us)
            case CutPower():
                for device in host.devices:
                    device.lose_power()
                host.spool.lose_power()
                self._end_agent(host, fault.down_us)
            case FreezeAgent():
                if agent is not None and agent.is_alive and not agent.is_frozen:
                    agent.freeze()
                    self._network.miss(agent, fault.for_us)
                    self.world.after(fault.for_us, agent.thaw)
            case DrainAgent():
                if agent is not None:
                    host.down_us = fault.down_us
                    agent.drain(fault.grace_us)
            case LoseHeartbeats():
                if agent is not None:
                    agent.beats_lost_until_us = self.world.now_us + fault.for_us
            case SickenDevice():
                device = next(device for device in host.devices if device.facts.id == fault.device)
                device.ailment = fault.ailment
                self.world.after(fault.for_us, device.heal)
            case Unplug():
                device = next(device for device in host.devices if device.facts.id == fault.device)
                device.unplug()
                self._look(host)
                self.world.after(fault.for_us, self._plug, host, device)
            case Partition():
                self._network.cut(host.name, fault.direction, fault.for_us)

    def _share(self, fault: ShareDevice) -> None:
        guest = self._hosts[fault.agent]
        devices = (device for host in self._hosts.values() for device in host.devices)
        device = next(device for device in devices if device.facts.id == fault.device)
        if device not in guest.guests:
            guest.guests.append(device)
            self._look(guest)
            self.world.after(fault.for_us, self._unshare, guest, device)

    def _unshare(self, guest: Host, device: Device) -> None:
        guest.guests.remove(device)
        self._look(guest)

    def _plug(self, host: Host, device: Device) -> None:
        device.plug()
        self._look(host)

    def _look(self, host: Host) -> None:
        if host.agent is not None:
            host.agent.hear(host.agent.look_at_devices)
