"""What can go wrong around a virtual phone: with the machine that it runs on, or with what it was given."""

import shutil

_DEBIAN_PACKAGES = {
    "adb": "adb",
    "aapt": "aapt",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
    "keytool": "openjdk-17-jre-headless",
}


class VirtualPhoneError(Exception):
    """Base of all errors of virtual phones."""


class ToolMissing(VirtualPhoneError):
    """A tool of the Android SDK or of Java is not installed on this machine."""

    def __init__(self, tool: str) -> None:
        super().__init__(tool)
        self.tool = tool

    def __str__(self) -> str:
        package = _DEBIAN_PACKAGES.get(self.tool, self.tool)
        return f"{self.tool} is not on PATH (on Debian: apt-get install {package})"


class BuildToolFailed(VirtualPhoneError):
    """A packaging tool refused to do its work."""

    def __init__(self, tool: str, exit_code: int, output: str) -> None:
        super().__init__(tool, exit_code, output)
        self.tool = tool
        self.exit_code = exit_code
        self.output = output

    def __str__(self) -> str:
        return f"{self.tool} ended with {self.exit_code}: {self.output}"


class ScreensInvalid(VirtualPhoneError):
    """A screens file cannot be used; the message says where and why."""


class FaultInvalid(VirtualPhoneError):
    """A fault is misspelt or lacks what it needs."""


class LabFailed(VirtualPhoneError):
    """A phone or the adb server of a lab did not start, or ended early."""


def require_tools(*tools: str) -> None:
    """Check that tools are installed; raises `ToolMissing` for the first that is not."""
    for tool in tools:
        if shutil.which(tool) is None:
            raise ToolMissing(tool)
