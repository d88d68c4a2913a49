"""Hosts of a network of their own on this machine, each with a cable to one switch that can be pulled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

NET = "10.98.0"
"""Only inside: nothing of it is seen by the machine's own network."""


class Network:
    """Network namespaces whose interfaces hang on a bridge, which is in a namespace too."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._mark = f"qg{os.getpid()}"
        self._hosts = {host: number for number, host in enumerate(hosts, 1)}

    def address(self, host: str) -> str:
        return f"{NET}.{self._hosts[host]}"

    def on(self, host: str) -> tuple[str, ...]:
        """What a command begins with that shall run on a host."""
        return ("ip", "netns", "exec", f"{self._mark}-{host}")

    def unplug(self, host: str) -> None:
        """Take a host off the switch. Its own end of the cable notices nothing: what it sends is lost in silence."""
        self._on_switch("link", "set", host, "nomaster")

    def plug(self, host: str) -> None:
        """Undo `unplug`."""
        self._on_switch("link", "set", host, "master", "switch")

    def build(self) -> None:
        """Make namespaces, bridge and cables.

        Raises:
            subprocess.CalledProcessError: This may not be done here.
        """
        for name in ("lan", *self._hosts):
            _ip("netns", "add", f"{self._mark}-{name}")
        self._on_switch("link", "add", "switch", "type", "bridge")
        self._on_switch("link", "set", "switch", "up")
        for host in self._hosts:
            inside = ("-n", f"{self._mark}-{host}")
            self._on_switch(
                "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", f"{self._mark}-{host}"
            )
            self._on_switch("link", "set", host, "up")
            self.plug(host)
            _ip(*inside, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            _ip(*inside, "link", "set", "eth0", "up")
            _ip(*inside, "link", "set", "lo", "up")

    def tear_down(self) -> None:
        """Delete the namespaces, and with them all that is in them."""
        for name in ("lan", *self._hosts):
            subprocess.run(["ip", "netns", "del", f"{self._mark}-{name}"], capture_output=True, check=False)

    def _on_switch(self, *arguments: str) -> None:
        _ip("-n", f"{self._mark}-lan", *arguments)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=True, text=True)


@contextmanager
def running_network(*hosts: str) -> Iterator[Network]:
    """A network that is gone at the end. Where none can be made, as in many containers, the test is skipped."""
    network = Network(hosts)
    try:
        network.build()
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        network.tear_down()
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else "there is no `ip`"
        pytest.skip(f"network namespaces cannot be made here: {why}")
    try:
        yield network
    finally:
        network.tear_down()
