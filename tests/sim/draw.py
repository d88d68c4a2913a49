"""Draws a plan from a seed: at least 3 agents, 6 devices, 40 jobs, 2 organisations, 5 faults and 10 minutes."""

from __future__ import annotations

import random
from dataclasses import replace

from agent.core.model import Account, DeviceFacts, DeviceId, DeviceKind, Lane
from coordinator.core.model import DeviceHold, JobSpec, Rules, Settings, Target
from tests.sim.plan import (
    Ailment,
    Behaviour,
    BreakStreams,
    CrashPoint,
    CutPower,
    DeposeCoordinator,
    Direction,
    DrainAgent,
    Ending,
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
    PlannedJob,
    ShareDevice,
    SickenDevice,
    SlowDisk,
    Submission,
    Unplug,
    Weather,
    Wish,
    WishKind,
)
from tests.sim.world import SECOND_US

CALM_US = 600 * SECOND_US
JOBS = 40
SESSIONS = 2
"""Of the account of a cloud."""
BROKEN_APP = "broken"
"""An app version whose build no device takes."""

ENDINGS = (
    *(Ending.PASSED,) * 14,
    *(Ending.FAILED,) * 3,
    *(Ending.ERRORED,) * 1,
    *(Ending.CRASHED,) * 1,
    *(Ending.HANGING,) * 1,
)
PACES = ((12, (4,)), (15, (5,)), (30, (5, 10)), (30, (10,)))
"""How long a lease may live, and the heartbeats that the coordinator accepts with it, in seconds."""
TESTS_OF_A_SPEC = (1, 1, 2, 3)
"""Each costs two facts and two commits; a run can end between any two."""
LOST_PERCENT = (0, 0, 3, 3, 3, 10, 10, 30)
"""Of the messages in raw weather. At 30 agents do little but come back, at twice the cost of any other seed."""
SOME_LANES = ((Lane.HIGH,), (Lane.HIGH, Lane.NORMAL), (Lane.NORMAL, Lane.LOW), (Lane.LOW,))
LOG_BYTES = (0, 0, 90, 90, *(400,) * 6, *(3_000,) * 6, *(20_000,) * 3, 150_000)


class Draw:
    """The dice of one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = random.Random(seed)
        self._operators = random.Random(f"operators of {seed}")
        """Dice of their own: a lab without operators is what it was before there were any."""
        self._tests = random.Random(f"tests of {seed}")
        self._ailments = random.Random(f"ailments of {seed}")
        self._clouds = random.Random(f"clouds of {seed}")
        self._has_cloud = seed % 8 in (5, 7)
        """Seeds of their own, so that all other labs are what they were before there were clouds."""
        self._settings = Settings()

    def between(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def plan(self) -> Plan:
        self._settings = self._draw_settings()
        agents = self._agents()
        submissions = self._submissions()
        return Plan(
            seed=self._seed,
            settings=self._settings,
            agents=agents,
            weather=self._weather(),
            submissions=submissions,
            wishes=tuple(self._wish(submissions) for _ in range(self.between(6, 12))),
            faults=tuple(
                sorted(
                    (
                        *self._faults(agents),
                        *self._operations(agents),
                        *self._illnesses(agents),
                        *self._late_words(agents),
                    ),
                    key=lambda fault: fault.at_us,
                )
            ),
            calm_us=CALM_US,
        )

    # The lab

    def _draw_settings(self) -> Settings:
        lease_ttl_s, heartbeats_s = self._random.choice(PACES)
        return Settings(
            heartbeat_us=random.Random(f"heartbeat of {self._seed}").choice(heartbeats_s) * SECOND_US,
            lease_ttl_us=lease_ttl_s * SECOND_US,
            orphan_limit_us=self._random.choice((45, 120, 600)) * SECOND_US,
            preempt_grace_us=self._random.choice((2, 10, 30)) * SECOND_US,
            max_batch=self.between(2, 8),
            canary_wait_us=self._ailments.choice((1, 5)) * SECOND_US,
            canary_most_us=20 * SECOND_US,
            rules=self._draw_rules(),
        )

    def _draw_rules(self) -> Rules:
        """Return rules under which a quarter of an hour shows what else would take a day."""
        dice = random.Random(f"rules of {self._seed}")
        return Rules(
            split_installs=dice.choice((1, 4, 8)),
            batch_least_us=dice.choice((20, 120)) * SECOND_US,
            batch_most_us=dice.choice((60, 600)) * SECOND_US,
            age_us=dice.choice((40, 200, 1_800)) * SECOND_US,
            guarantee_wait_us=dice.choice((60, 200, 7_200)) * SECOND_US,
            guarantee_every=dice.choice((3, 10)),
            weights={"acme": dice.choice((100, 300))},
            quotas={"globex": dice.choice((0, 0, 2, 3))},
            spill={"acme": self._clouds.choice((1, 3, 4))} if self._has_cloud else {},
        )

    def _agents(self) -> tuple[PlannedAgent, ...]:
        names = [f"lab{number}" for number in range(1, (4 if self.between(0, 3) == 0 else 3) + 1)]
        agents = [PlannedAgent(name=name, devices=self._devices(name)) for name in names]
        dice = random.Random(f"lanes of {self._seed}")
        if dice.randint(0, 2) == 0:
            # The others serve all lanes, so that every job finds a device.
            kept = dice.randrange(len(agents))
            agents[kept] = replace(agents[kept], lanes=dice.choice(SOME_LANES))
        dice = random.Random(f"organisations of {self._seed}")
        if dice.randint(0, 5) == 0:
            kept = dice.randrange(len(agents))
            agents[kept] = replace(agents[kept], orgs=(dice.choice(("acme", "globex")),))
        if self._has_cloud:
            agents += [PlannedAgent(name=name, devices=_slots(name)) for name in ("cloud1", "cloud2")]
        return tuple(agents)

    def _devices(self, agent: str) -> tuple[DeviceFacts, ...]:
        kinds = [DeviceKind.EMULATOR, DeviceKind.DEVICE]
        if self.between(0, 3) == 0:
            kinds.append(self._random.choice((DeviceKind.EMULATOR, DeviceKind.DEVICE)))
        return tuple(
            DeviceFacts(
                id=DeviceId(f"{kind}{number}@{agent}"),
                kind=kind,
                model=self._random.choice(("Pixel 7", "Pixel 8")),
                os_version="14",
                udid=f"{kind}{number}",
            )
            for number, kind in enumerate(kinds, 1)
        )

    def _weather(self) -> Weather:
        delay_us = self._random.choice((5_000, 50_000, 400_000))
        answers_lost = self._random.choice((0, 10, 30))
        if self.between(0, 3):
            late = self._random.choice((0, 2, 10))
            return Weather(late=late, longest_delay_us=delay_us, answers_lost=answers_lost)
        return Weather(
            is_raw=True,
            lost=self._random.choice(LOST_PERCENT),
            doubled=self._random.choice((0, 10, 50)),
            late=self._random.choice((0, 10, 40)),
            longest_delay_us=delay_us,
            answers_lost=answers_lost,
        )

    # The users

    def _submissions(self) -> tuple[Submission, ...]:
        apps = {org: [f"v{number}" for number in range(1, self.between(1, 3) + 1)] for org in ("acme", "globex")}
        if self.between(0, 5) == 0:
            apps["acme"].append(BROKEN_APP)
        submissions: list[Submission] = []
        jobs = 0
        while jobs < JOBS:
            submission = self._submission(len(submissions), apps, JOBS - jobs)
            submissions.append(submission)
            jobs += len(submission.jobs)
        return tuple(submissions)

    def _submission(self, number: int, apps: dict[str, list[str]], most: int) -> Submission:
        org = "acme" if number == 0 else "globex" if number == 1 else self._random.choice(("acme", "globex"))
        key = f"{org}-{number}"
        priority = self._random.choice((1, 1, 2, 2, 3, 3, 4, 5))
        target = self._random.choice((Target.ANY, Target.ANY, Target.ANY, Target.EMULATOR, Target.DEVICE))
        if self._has_cloud and self._clouds.randint(0, 3) == 0:
            target = Target.BROWSERSTACK
        selector = (("model", "pixel*"),) if self.between(0, 7) == 0 else ()
        app = self._random.choice(apps[org])
        jobs = tuple(
            self._job(
                JobSpec(
                    org_id=org,
                    app_version_id=app,
                    test=f"tests/{key}-{index}.spec.ts",
                    priority=priority if self.between(0, 4) else self.between(1, 5),
                    target=target,
                    selector=selector,
                    retries=self._random.choice((0, 0, 1)),
                    timeout_us=self.between(40, 90) * SECOND_US,
                )
            )
            for index in range(min(most, self.between(1, 8)))
        )
        return Submission(at_us=self.between(0, 480 * SECOND_US), key=key, jobs=jobs)

    def _job(self, spec: JobSpec) -> PlannedJob:
        return PlannedJob(
            spec=spec,
            behaviours=tuple(self._behaviour() for _ in range(3)),
            tests=tuple(f"{spec.test}:{number}" for number in range(self._tests.choice(TESTS_OF_A_SPEC))),
            is_tied=self._tests.choice((False, False, True)),
        )

    def _behaviour(self) -> Behaviour:
        return Behaviour(
            span_us=self.between(1, 9) * self.between(1, 4) * SECOND_US + self.between(0, SECOND_US),
            ending=self._random.choice(ENDINGS),
            log_bytes=1_300_000 if self.between(0, 200) == 0 else self._random.choice(LOG_BYTES),
            failing=self._tests.randrange(4),
        )

    def _wish(self, submissions: tuple[Submission, ...]) -> Wish:
        target = self._random.choice(submissions)
        return Wish(
            at_us=target.at_us + self.between(0, 90) * SECOND_US,
            kind=self._random.choice(tuple(WishKind)),
            submission=target.key,
            index=self.between(0, len(target.jobs) - 1),
        )

    # The faults

    def _faults(self, agents: tuple[PlannedAgent, ...]) -> tuple[Fault, ...]:
        faults = [self._fault(self._random.choice(agents)) for _ in range(self.between(5, 14))]
        return tuple(sorted(faults, key=lambda fault: fault.at_us))

    def _operations(self, agents: tuple[PlannedAgent, ...]) -> tuple[Fault, ...]:
        """Let operators hold devices and agents, and agents see each other's devices, in two seeds of three."""
        if self._seed % 3 == 1:
            return ()
        return tuple(self._operation(agents) for _ in range(self._operators.randint(2, 8)))

    def _illnesses(self, agents: tuple[PlannedAgent, ...]) -> tuple[Fault, ...]:
        """Let devices fail in bursts."""
        return tuple(self._illness(self._ailments.choice(agents)) for _ in range(self._ailments.randint(0, 3)))

    def _illness(self, agent: PlannedAgent) -> Fault:
        dice = self._ailments
        for_us = dice.choice((10, 60, 150)) * SECOND_US
        return SickenDevice(
            at_us=dice.randint(5 * SECOND_US, CALM_US - for_us),
            agent=agent.name,
            device=dice.choice(agent.devices).id,
            ailment=dice.choice(tuple(Ailment)),
            for_us=for_us,
        )

    def _late_words(self, agents: tuple[PlannedAgent, ...]) -> tuple[Fault, ...]:
        """Lose an agent's heartbeats, in one seed of eight, and let its leases end in the sleep in which one arrives.

        What the coordinator does first when it wakes is the life or the end of those leases.
        """
        dice = random.Random(f"late words of {self._seed}")
        if dice.randrange(8):
            return ()
        for_us = self._settings.lease_ttl_us - self._settings.heartbeat_us
        at_us = dice.randint(20, 300) * SECOND_US
        return (
            LoseHeartbeats(at_us=at_us, agent=dice.choice(agents).name, for_us=for_us),
            FreezeCoordinator(at_us=at_us + for_us, for_us=self._settings.heartbeat_us),
        )

    def _operation(self, agents: tuple[PlannedAgent, ...]) -> Fault:
        dice = self._operators
        owner, guest = dice.sample(agents, 2)
        device = dice.choice(owner.devices).id
        at_us = dice.randint(5 * SECOND_US, CALM_US - 60 * SECOND_US)
        for_us = dice.randint(2, 50) * SECOND_US
        match dice.randint(0, 5):
            case 0 | 1:
                return HoldDevice(at_us=at_us, device=device, hold=DeviceHold.QUARANTINE, for_us=for_us)
            case 2 | 3:
                return HoldDevice(at_us=at_us, device=device, hold=DeviceHold.DRAIN, for_us=for_us)
            case 4:
                is_interrupting = dice.random() < 0.5
                return HoldAgent(at_us=at_us, agent=owner.name, is_interrupting=is_interrupting, for_us=for_us)
            case _:
                return ShareDevice(at_us=at_us, agent=guest.name, device=device, for_us=for_us)

    def _fault(self, agent: PlannedAgent) -> Fault:
        at_us = self.between(5 * SECOND_US, CALM_US - 40 * SECOND_US)
        match self.between(0, 19):
            case 0 | 1 | 2:
                return KillCoordinator(
                    at_us=at_us, point=self._random.choice(tuple(CrashPoint)), down_us=self._down_us()
                )
            case 3:
                return FreezeCoordinator(at_us=at_us, for_us=self._around_ttl_us(at_us))
            case 4 | 5:
                return DeposeCoordinator(at_us=at_us, for_us=self._around_ttl_us(at_us))
            case 6:
                latency_us = self.between(50_000, 3 * SECOND_US)
                return SlowDisk(at_us=at_us, for_us=self._around_ttl_us(at_us), latency_us=latency_us)
            case 7 | 8:
                is_at_commit = self.between(0, 2) == 0
                return KillAgent(at_us=at_us, agent=agent.name, is_at_commit=is_at_commit, down_us=self._down_us())
            case 9:
                return CutPower(at_us=at_us, agent=agent.name, down_us=self._down_us())
            case 10 | 11:
                return FreezeAgent(at_us=at_us, agent=agent.name, for_us=self._around_ttl_us(at_us))
            case 12:
                grace_us = self._random.choice((0, 10, 60)) * SECOND_US
                return DrainAgent(at_us=at_us, agent=agent.name, grace_us=grace_us, down_us=self._down_us())
            case 13 | 14:
                device = self._random.choice(agent.devices).id
                return Unplug(at_us=at_us, agent=agent.name, device=device, for_us=self._around_ttl_us(at_us))
            case 15 | 16 | 17:
                return Partition(
                    at_us=at_us,
                    agent=agent.name,
                    direction=self._random.choice(tuple(Direction)),
                    for_us=self._around_ttl_us(at_us),
                )
            case 18:
                return BreakStreams(at_us=at_us)
            case _:
                return JumpClocks(at_us=at_us, by_us=self._random.choice((-3600, -60, 60, 3600)) * SECOND_US)

    def _down_us(self) -> int:
        return self._random.choice((300_000, 2 * SECOND_US, 8 * SECOND_US, 25 * SECOND_US))

    def _around_ttl_us(self, at_us: int) -> int:
        """Return a span around half, one or two times to live of a lease, that is over when the faults stop."""
        halves = self._random.choice((1, 2, 4))
        span_us = self._settings.lease_ttl_us * halves // 2 * self.between(80, 120) // 100
        return min(span_us, CALM_US - at_us)


def _slots(agent: str) -> tuple[DeviceFacts, ...]:
    """Return slots of the one account that all agents of a cloud share: each could use all of its sessions alone."""
    return tuple(
        DeviceFacts(
            id=DeviceId(f"slot{number}@{agent}"),
            kind=DeviceKind.BROWSERSTACK,
            model="*",
            os_version="*",
            udid=f"slot{number}",
            account=Account(name="cloud", sessions=SESSIONS),
        )
        for number in range(1, SESSIONS + 1)
    )


def draw_plan(seed: int) -> Plan:
    """Return what a seed stands for."""
    return Draw(seed).plan()
