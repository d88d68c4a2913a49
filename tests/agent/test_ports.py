"""Ports that no two agents of a host share."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from agent.ports import DevicePorts, PortsTaken, free_port

PORTS = range(8_100, 8_200)


def test_two_agents_never_get_the_same_ports(tmp_path: Path) -> None:
    one, two = DevicePorts(PORTS, 2, 0, tmp_path), DevicePorts(PORTS, 2, 0, tmp_path)
    assert not set(one.numbers) & set(two.numbers)
    assert one.numbers[1] == one.numbers[0] + 1
    numbers = one.numbers
    one.release()
    assert DevicePorts(PORTS, 2, 0, tmp_path).numbers == numbers


def test_ports_run_out_with_a_clear_word(tmp_path: Path) -> None:
    first = free_port()
    taken = DevicePorts(range(first, first + 1), 1, 0, tmp_path)
    with pytest.raises(PortsTaken, match=f"no port from {first} to {first} is free"):
        DevicePorts(range(first, first + 1), 1, 0, tmp_path)
    taken.release()


def test_block_of_which_something_else_has_one_port_is_passed_over(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        second = other.getsockname()[1]
        with pytest.raises(PortsTaken):
            DevicePorts(range(second - 1, second + 1), 2, 0, tmp_path)
