"""Commands about the display and the device."""

import base64

from agent.virtual_phone.app import DISPLAY_HEIGHT, DISPLAY_WIDTH, STATUS_BAR_HEIGHT
from agent.virtual_phone.phone import DISPLAY_DENSITY
from agent.virtual_phone.uiautomator.gestures import screenshot
from agent.virtual_phone.uiautomator.node import build_tree, to_xml
from agent.virtual_phone.uiautomator.session import Body, CommandFailed, Json, Routes, Session, bad_argument, text_of

_MEDIUM_DENSITY = 160
_CHARGING, _DISCHARGING = 2, 3


def device_facts(session: Session) -> Body:
    """Return what the server tells about the phone."""
    phone = session.phone
    return {
        "androidId": phone.system.settings.get(("secure", "android_id"), ""),
        "apiVersion": str(phone.identity.sdk),
        "platformVersion": phone.identity.release,
        "brand": phone.identity.manufacturer,
        "manufacturer": phone.identity.manufacturer,
        "model": phone.identity.model,
        "realDisplaySize": f"{DISPLAY_WIDTH}x{DISPLAY_HEIGHT}",
        "displayDensity": DISPLAY_DENSITY,
        "locale": "en_US",
        "timeZone": "UTC",
        "networks": [],
    }


def take_screenshot(session: Session, body: Body) -> Json:
    """Return a PNG of the display, in base64."""
    del body
    return base64.b64encode(screenshot(session.phone)).decode()


def _get_source(session: Session, body: Body) -> Json:
    del body
    return to_xml(build_tree(session.phone))


def _get_size(session: Session, body: Body) -> Json:
    del session, body
    return {"width": DISPLAY_WIDTH, "height": DISPLAY_HEIGHT}


def _get_orientation(session: Session, body: Body) -> Json:
    del body
    return "LANDSCAPE" if session.phone.system.is_landscape else "PORTRAIT"


def _set_orientation(session: Session, body: Body) -> Json:
    orientation = text_of(body, "orientation").upper()
    if orientation not in ("PORTRAIT", "LANDSCAPE"):
        raise bad_argument(f"unknown orientation {orientation!r}")
    session.phone.system.is_landscape = orientation == "LANDSCAPE"
    return orientation


def _refuse_alert(session: Session, body: Body) -> Json:
    del session, body
    raise CommandFailed(404, "no such alert", "An attempt was made to operate on a modal dialog when one was not open")


def _get_info(session: Session, body: Body) -> Json:
    del body
    return device_facts(session)


def _get_battery(session: Session, body: Body) -> Json:
    del body
    phone = session.phone
    return {"level": phone.battery_percent / 100, "status": _CHARGING if phone.is_charging else _DISCHARGING}


def _get_pixel_ratio(session: Session, body: Body) -> Json:
    del session, body
    return DISPLAY_DENSITY / _MEDIUM_DENSITY


def _get_density(session: Session, body: Body) -> Json:
    del session, body
    return DISPLAY_DENSITY


def _get_system_bars(session: Session, body: Body) -> Json:
    del session, body
    return {"statusBar": STATUS_BAR_HEIGHT}


def _get_clipboard(session: Session, body: Body) -> Json:
    del body
    return session.phone.system.clipboard_base64


def _set_clipboard(session: Session, body: Body) -> Json:
    session.phone.system.clipboard_base64 = text_of(body, "content")
    return None


_SESSION = "/session/:session"
ROUTES: Routes = {
    ("GET", f"{_SESSION}/source"): _get_source,
    ("GET", f"{_SESSION}/screenshot"): take_screenshot,
    ("GET", f"{_SESSION}/window/current/size"): _get_size,
    ("GET", f"{_SESSION}/orientation"): _get_orientation,
    ("POST", f"{_SESSION}/orientation"): _set_orientation,
    ("GET", f"{_SESSION}/alert/text"): _refuse_alert,
    ("POST", f"{_SESSION}/alert/accept"): _refuse_alert,
    ("POST", f"{_SESSION}/alert/dismiss"): _refuse_alert,
    ("GET", f"{_SESSION}/appium/device/info"): _get_info,
    ("GET", f"{_SESSION}/appium/device/battery_info"): _get_battery,
    ("GET", f"{_SESSION}/appium/device/pixel_ratio"): _get_pixel_ratio,
    ("GET", f"{_SESSION}/appium/device/display_density"): _get_density,
    ("GET", f"{_SESSION}/appium/device/system_bars"): _get_system_bars,
    ("POST", f"{_SESSION}/appium/device/get_clipboard"): _get_clipboard,
    ("POST", f"{_SESSION}/appium/device/set_clipboard"): _set_clipboard,
}
