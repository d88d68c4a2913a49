"""Plays `xcrun` with a Mac's simulators and devices, which are kept in a file beside it.

simctl and devicectl answer as Apple documents them, as far as the agent uses them. What is called is kept in `calls`. A
command for which the file `faults` has a sentence fails with it; a fault goes by the beginning of the command.
"""

import fcntl
import json
import shutil
import sys
import uuid
from pathlib import Path

RECORDED = Path(__file__).with_name("recorded")


def install_stand_in(directory: Path) -> Path:
    """Put the stand-in into a folder under the name of the real program, and return the folder."""
    directory.mkdir()
    program = directory / "xcrun"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" "$0" "$@"\n')
    program.chmod(0o755)
    shutil.copy(RECORDED / "simctl_list_devices.json", directory / "simulators")
    shutil.copy(RECORDED / "devicectl_list_devices.json", directory / "phones")
    return directory


class Refused(Exception):
    """The command fails, with a sentence."""


class Mac:
    """What the stand-in works on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.simulators = json.loads((folder / "simulators").read_text())
        apps = folder / "apps"
        self.apps: dict[str, str] = json.loads(apps.read_text()) if apps.exists() else {}
        """Where `UDID BUNDLE` lies."""

    def save(self) -> None:
        (self.folder / "simulators").write_text(json.dumps(self.simulators))
        (self.folder / "apps").write_text(json.dumps(self.apps))

    def simulator(self, udid: str) -> dict[str, object]:
        for devices in self.simulators["devices"].values():
            for device in devices:
                if device["udid"] == udid:
                    return dict_of(device)
        raise Refused(f"Invalid device: {udid}")

    def install(self, udid: str, folder: str) -> str:
        bundle = bundle_of(Path(folder))
        self.apps[f"{udid} {bundle}"] = f"/Containers/Bundle/Application/{uuid.uuid4()}/{Path(folder).name}"
        return bundle


def dict_of(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value


def bundle_of(folder: Path) -> str:
    # Read without plistlib, whose import takes longer than all the rest.
    text = (folder / "Info.plist").read_text()
    return text.partition("<key>CFBundleIdentifier</key>")[2].partition("<string>")[2].partition("</string>")[0]


def simctl(mac: Mac, words: list[str]) -> str:
    match words:
        case ["list", "devices", "--json"]:
            return json.dumps(mac.simulators)
        case ["bootstatus", udid, "-b"]:
            mac.simulator(udid)["state"] = "Booted"
        case ["shutdown", udid]:
            mac.simulator(udid)["state"] = "Shutdown"
        case ["erase", udid]:
            if mac.simulator(udid)["state"] != "Shutdown":
                raise Refused("Unable to erase contents and settings in current state: Booted")
            mac.apps = {app: place for app, place in mac.apps.items() if not app.startswith(udid)}
        case ["install", udid, folder]:
            if mac.simulator(udid)["state"] != "Booted":
                raise Refused("Unable to lookup in current state: Shutdown")
            mac.install(udid, folder)
        case ["uninstall", udid, bundle]:
            mac.apps.pop(f"{udid} {bundle}", None)
        case ["get_app_container", udid, bundle, "app"]:
            if f"{udid} {bundle}" not in mac.apps:
                raise Refused("No such file or directory")
            return mac.apps[f"{udid} {bundle}"]
        case ["launch", "--terminate-running-process", udid, bundle]:
            if f"{udid} {bundle}" not in mac.apps:
                raise Refused(f"The operation could not be completed. {bundle} is not installed")
            return f"{bundle}: 4711"
        case _:
            raise Refused(f"Unrecognized subcommand: {words}")
    return ""


def devicectl(mac: Mac, words: list[str]) -> object:
    match words:
        case ["list", "devices"]:
            return json.loads((mac.folder / "phones").read_text())["result"]
        case ["device", "info", "lockState", "--device", udid]:
            is_locked = (mac.folder / "locked").exists()
            return {"deviceIdentifier": udid, "passcodeRequired": is_locked, "unlockedSinceBoot": True}
        case ["device", "info", "apps", "--device", udid, "--bundle-id", bundle]:
            place = mac.apps.get(f"{udid} {bundle}")
            apps = [{"bundleIdentifier": bundle, "bundleVersion": "1", "url": f"file:///private{place}/"}]
            return {"apps": apps if place else [], "matchingBundleIdentifier": bundle}
        case ["device", "install", "app", "--device", udid, folder]:
            return {"installedApplications": [{"bundleID": mac.install(udid, folder)}]}
        case ["device", "uninstall", "app", "--device", udid, bundle]:
            mac.apps.pop(f"{udid} {bundle}", None)
            return {}
        case ["device", "process", "launch", "--device", udid, "--terminate-existing", bundle]:
            if f"{udid} {bundle}" not in mac.apps:
                raise Refused(f"The requested application {bundle} is not installed.")
            return {"process": {"processIdentifier": 4711}}
        case _:
            raise Refused(f"Unknown command: {words}")


def main(program: Path, arguments: list[str]) -> int:
    """Answer one command."""
    folder = program.parent
    answer = Path(arguments[arguments.index("--json-output") + 1]) if "--json-output" in arguments else None
    words = arguments[: arguments.index("--timeout")] if "--timeout" in arguments else arguments
    calls = (folder / "calls").open("a")
    fcntl.flock(calls, fcntl.LOCK_EX)  # until this ends: several commands at once work on one Mac
    calls.write(" ".join(words) + "\n")
    mac = Mac(folder)
    try:
        faults = json.loads((folder / "faults").read_text()) if (folder / "faults").exists() else {}
        for command, sentence in faults.items():
            if " ".join(words).startswith(command):
                raise Refused(sentence)
        told = simctl(mac, words[1:]) if words[0] == "simctl" else devicectl(mac, words[1:])
        mac.save()
    except Refused as refusal:
        sys.stderr.write(f"An error was encountered processing the command.\n{refusal}\n")
        if answer is not None:
            told = {
                "info": {"outcome": "failed"},
                "error": {"code": 3002, "userInfo": {"NSLocalizedDescription": {"string": str(refusal)}}},
            }
            answer.write_text(json.dumps(told))
        return 1
    if answer is not None:
        answer.write_text(json.dumps({"info": {"outcome": "success", "jsonVersion": 2}, "result": told}))
    elif isinstance(told, str):
        sys.stderr.write("2024-09-27 simctl[1:2] a warning that is no part of the answer\n")
        sys.stdout.write(told + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
