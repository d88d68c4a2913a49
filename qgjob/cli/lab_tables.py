"""How devices, agents and builds look to people."""

from __future__ import annotations

from qgjob.cli.printing import line_out, table
from qgjob.cli.table import Column
from qgjob.cli.words import ago, size
from qgjob.resources import Resource


def devices_table(devices: list[Resource]) -> None:
    """Print devices."""
    rows = [
        [
            device["id"],
            device["state"],
            device["kind"],
            str(device["job"] or "-"),
            f"{device['utilisation']:.0%}",
            device["reason"] or "",
            _model(device),
        ]
        for device in devices
    ]
    columns = [
        Column("ID"),
        Column("State"),
        Column("Kind", is_optional=True),
        Column("Job"),
        Column("Used", is_optional=True),
        # Why a device cannot be used says more than what it is: the last column leaves a narrow terminal first.
        Column("Reason", is_flexible=True, is_optional=True),
        Column("Model", is_optional=True),
    ]
    table(columns, rows, empty="No devices. Start an agent with `qgjob-agent run`.")


def _model(device: Resource) -> str:
    """Return what a device is, as far as its agent could ask it."""
    system = f"{device['platform']} {device['os_version']}".strip()
    return f"{device['model']} ({system})" if device["model"] else "-"


def _devices_of(agent: Resource) -> str:
    """Return how many devices an agent has, and how many it announces that other agents have."""
    conflicts = len(agent["conflicting_devices"])
    return f"{agent['devices']} + {conflicts} in conflict" if conflicts else str(agent["devices"])


def agents_table(agents: list[Resource]) -> None:
    """Print agents."""
    rows = [
        [
            agent["name"],
            f"{agent['state']}, draining" if agent["draining"] else agent["state"],
            _devices_of(agent),
            str(agent["batches"]),
            ", ".join(agent["lanes"]),
            ", ".join(agent["orgs"]) or "all",
            ago(agent["seen_time"]),
            agent["host"],
            agent["version"],
        ]
        for agent in agents
    ]
    columns = [
        Column("Name"),
        Column("State"),
        Column("Devices"),
        Column("Batches", is_optional=True),
        Column("Lanes", is_optional=True),
        Column("Orgs", is_flexible=True, is_optional=True),
        Column("Heard", is_optional=True),
        Column("Host", is_flexible=True, is_optional=True),
        Column("Version", is_optional=True),
    ]
    table(columns, rows, empty="No agents. Start one with `qgjob-agent run`.")


def builds_table(builds: list[Resource]) -> None:
    """Print builds."""
    rows = [
        [
            build["org_id"],
            build["app_version_id"],
            build["digest"][:16],
            "yes" if build["registered"] else "no",
            build["platform"] or "",
            str(build["installs"]),
            ago(build["install_time"]),
            build["file_name"] or "",
        ]
        for build in builds
    ]
    columns = [
        Column("Org", is_flexible=True),
        Column("App version", is_flexible=True),
        Column("SHA-256"),
        Column("Registered", is_optional=True),
        Column("Platform", is_optional=True),
        Column("Installs", is_optional=True),
        Column("Last", is_optional=True),
        Column("File", is_flexible=True, is_optional=True),
    ]
    table(columns, rows, empty="No build was registered or installed yet. Upload one with `qgjob builds upload`.")


def build_block(build: Resource) -> None:
    """Print a build."""
    line_out(f"Build {build['app_version_id']} of {build['org_id']}")
    line_out(f"SHA-256:    {build['digest']}")
    if build["registered"]:
        line_out(f"Registered: {ago(build['register_time'])}, {size(build['size'])}, {build['file_name']}")
    if build["platform"]:
        alone = f", for {build['device_kind']}s alone" if build["device_kind"] else ""
        line_out(f"Platform:   {build['platform']}{alone}")
    line_out(f"Installs:   {build['installs']}")
