"""Which platform jobs ask for: that of their build, where it is known.

A lab that has both would else try APKs on iPhones. An iOS device takes only jobs that ask for it: by their build, by
`platform` in their selector, or by naming the device. All others are taken to be for Android, as they were before there
was anything else.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace

from coordinator.core.builds import Builds
from coordinator.core.errors import InvalidRequest
from coordinator.core.model import IOS, PLATFORM, JobSpec

Selector = tuple[tuple[str, str], ...]


def with_platforms(specs: Sequence[JobSpec], builds: Builds) -> tuple[JobSpec, ...]:
    """Return what was asked for, with the platform demanded where the build is for iOS.

    Raises:
        InvalidRequest: A selector asks for another platform than the build is for.
    """
    demands: dict[tuple[Selector, str], Selector] = {}
    """Jobs with one selector share one: there may be thousands."""
    answer = []
    for spec in specs:
        platform = builds.platform_of(spec.org_id, spec.app_version_id)
        if not platform:
            answer.append(spec)
            continue
        key = (spec.selector, platform)
        if key not in demands:
            demands[key] = _demanding(spec, platform)
        answer.append(spec if demands[key] == spec.selector else replace(spec, selector=demands[key]))
    return tuple(answer)


def _demanding(spec: JobSpec, platform: str) -> Selector:
    wanted: Mapping[str, str] = dict(spec.selector)
    pattern = wanted.get(PLATFORM)
    if pattern is not None and not fnmatch.fnmatchcase(platform, pattern.lower()):
        raise InvalidRequest(
            "selector",
            f"app version {spec.app_version_id} is a build for {platform}, and the selector asks for"
            f" {PLATFORM}={pattern}; leave it out, or upload the other build under an app version of its own",
        )
    if platform != IOS:
        return spec.selector
    return tuple(sorted({**wanted, PLATFORM: platform}.items()))
