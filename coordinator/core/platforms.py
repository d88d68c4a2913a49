"""Where jobs may run because of their build: on its platform, and on the kind of device that it was built for.

A lab that has both platforms would else try APKs on iPhones, and blame the build when two have refused it. An iOS
device takes only jobs that ask for it: by their build, by `platform` in their selector, or by naming the device. All
others are taken to be for Android, as they were before there was anything else. An app of iOS is built for simulators
or for devices, and neither takes the other's.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace

from coordinator.core.builds import Builds
from coordinator.core.errors import InvalidRequest
from coordinator.core.model import IOS, PLATFORM, Build, DeviceKind, JobSpec, Target

Selector = tuple[tuple[str, str], ...]

_TARGETS = {DeviceKind.EMULATOR: Target.EMULATOR, DeviceKind.DEVICE: Target.DEVICE}


def with_demands(specs: Sequence[JobSpec], builds: Builds) -> tuple[JobSpec, ...]:
    """Return what was asked for, with what the builds demand besides.

    Raises:
        InvalidRequest: A selector or a target asks for something else than the build is for.
    """
    demands: dict[tuple[Selector, str], Selector] = {}
    """Jobs with one selector share one: there may be thousands."""
    answer = []
    for spec in specs:
        build = builds.registered(spec.org_id, spec.app_version_id)
        if build is None or not build.platform:
            answer.append(spec)
            continue
        key = (spec.selector, build.platform)
        if key not in demands:
            demands[key] = _selector(spec, build)
        target = _target(spec, build)
        is_met = (target, demands[key]) == (spec.target, spec.selector)
        answer.append(spec if is_met else replace(spec, target=target, selector=demands[key]))
    return tuple(answer)


def _selector(spec: JobSpec, build: Build) -> Selector:
    wanted: Mapping[str, str] = dict(spec.selector)
    pattern = wanted.get(PLATFORM)
    if pattern is not None and not fnmatch.fnmatchcase(build.platform, pattern.lower()):
        raise InvalidRequest(
            "selector",
            f"app version {spec.app_version_id} is a build for {build.platform}, and the selector asks for"
            f" {PLATFORM}={pattern}; leave it out, or upload the other build under an app version of its own",
        )
    if build.platform != IOS:
        return spec.selector
    return tuple(sorted({**wanted, PLATFORM: build.platform}.items()))


def _target(spec: JobSpec, build: Build) -> Target:
    if build.kind is None:
        return spec.target
    fitting = _TARGETS.get(build.kind, spec.target)
    if spec.target is Target.ANY:
        return fitting
    # What a cloud takes is the cloud's business.
    if spec.target not in (fitting, Target.BROWSERSTACK):
        raise InvalidRequest(
            "target",
            f"app version {spec.app_version_id} was built for target {fitting} alone, and target {spec.target} is asked"
            " for; leave it out, or upload the other build under an app version of its own",
        )
    return spec.target
