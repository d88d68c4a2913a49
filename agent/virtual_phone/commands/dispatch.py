"""``cmd SERVICE ...``: calls a service of the system by its name."""

from collections.abc import Mapping

from agent.virtual_phone.commands import activity, package, settings
from agent.virtual_phone.shell import Call, Command

SERVICE_MISSING = 20

SERVICES: Mapping[str, Command] = {
    "activity": activity.run_am,
    "package": package.run_pm,
    "settings": settings.run_settings,
    **settings.SERVICES,
}


async def run_cmd(call: Call) -> int:
    """Run ``cmd``."""
    arguments = call.arguments
    if arguments[:1] == ["-w"]:  # wait for the service; all that will ever run do so already
        arguments = arguments[1:]
    if not arguments:
        return await call.fail("cmd: No service specified; use -l to list all running services", SERVICE_MISSING)
    if arguments[0] == "-l":
        await call.say("Currently running services:\n" + "".join(f"  {name}\n" for name in sorted(SERVICES)))
        return 0
    service = SERVICES.get(arguments[0])
    if service is None or not call.phone.is_booted:
        return await call.refuse_unknown(arguments[0], f"cmd: Can't find service: {arguments[0]}", SERVICE_MISSING)
    call.name, call.arguments = arguments[0], arguments[1:]
    return await service(call)
