"""Lets the virtual phones of a running agent misbehave: ``python -m agent.virtual_phone.control``.

For who wants to see what the grid does then::

    python -m agent.virtual_phone.control list
    python -m agent.virtual_phone.control begin virtual-1 offline=drop,seconds=20
    python -m agent.virtual_phone.control begin virtual-2 install_fails=INSTALL_FAILED_INTERNAL_ERROR,times=1
    python -m agent.virtual_phone.control begin virtual-1 crash,after_taps=2
    python -m agent.virtual_phone.control end virtual-1 offline

A phone is named as ``qgjob devices list`` names it, by its serial number or by its udid; the faults are those of
``faults``. ``--state-dir`` is the agent's; an agent with the default name needs none. What a phone is to have from the
start is said by the agent's ``--virtual-phone-faults '1:unauthorized;2:storage_full'``.
"""

import argparse
import asyncio
import socket
import sys
from pathlib import Path

from platformdirs import user_state_path

from agent.virtual_phone.errors import LabFailed
from agent.virtual_phone.lab import DIRECTORY_NAME
from agent.virtual_phone.lab_control import ask

EXIT_FAILED = 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agent.virtual_phone.control", description="Let virtual phones of a running agent misbehave."
    )
    default = user_state_path("qgjob-agent") / socket.gethostname()
    parser.add_argument("--state-dir", type=Path, default=default, help="the agent's --state-dir (default %(default)s)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="show the phones, how adb sees them, and their faults")
    begin = verbs.add_parser("begin", help="begin a fault")
    begin.add_argument("phone", help="such as virtual-1")
    begin.add_argument("fault", help="KIND[=VALUE][,OPTION=VALUE...], such as offline=drop,seconds=20")
    end = verbs.add_parser("end", help="end a fault")
    end.add_argument("phone", help="such as virtual-1")
    end.add_argument("kind", help="such as offline")
    return parser


def run() -> int:
    """Do what the arguments of the process ask; return its exit code."""
    arguments = _parser().parse_args()
    match arguments.verb:
        case "begin":
            request = {"begin": arguments.fault, "phone": arguments.phone}
        case "end":
            request = {"end": arguments.kind, "phone": arguments.phone}
        case _:
            request = {"list": True}
    try:
        answer = asyncio.run(ask(arguments.state_dir / DIRECTORY_NAME, request))
    except LabFailed as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_FAILED
    for phone in answer.get("phones", []):
        faults = " ".join(phone["faults"]) or "-"
        sys.stdout.write(f"{phone['name']}  {phone['serial']}  {phone['udid']}  {phone['state']}  {faults}\n")
    if answer.get("had_it") is False:
        sys.stdout.write(f"{arguments.phone} did not have it\n")
    return 0


if __name__ == "__main__":
    sys.exit(run())
