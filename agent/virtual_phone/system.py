"""The phone's system settings: what tests and drivers turn on, off and over."""

from dataclasses import dataclass, field

DEFAULT_INPUT_METHOD = "com.android.inputmethod.latin/.LatinIME"
SETTING_NAMESPACES = ("system", "secure", "global")


def _default_settings() -> dict[tuple[str, str], str]:
    return {
        ("global", "adb_enabled"): "1",
        ("global", "airplane_mode_on"): "0",
        ("global", "animator_duration_scale"): "1.0",
        ("global", "bluetooth_on"): "0",
        ("global", "device_provisioned"): "1",
        ("global", "mobile_data"): "1",
        ("global", "transition_animation_scale"): "1.0",
        ("global", "wifi_on"): "1",
        ("global", "window_animation_scale"): "1.0",
        ("secure", "android_id"): "9774d56d682e549c",
        ("secure", "default_input_method"): DEFAULT_INPUT_METHOD,
        ("secure", "location_mode"): "3",
        ("system", "screen_off_timeout"): "60000",
    }


@dataclass(slots=True, kw_only=True)
class SystemState:
    """Settings by (namespace, key), what is switched on by name, and the like."""

    settings: dict[tuple[str, str], str] = field(default_factory=_default_settings)
    is_location_on: bool = True
    is_nfc_on: bool = True
    is_night_mode: bool = False
    app_operations: dict[tuple[str, str], str] = field(default_factory=dict)
    notification_listeners: set[str] = field(default_factory=set)
    idle_whitelist: set[str] = field(default_factory=set)
    enabled_input_methods: set[str] = field(default_factory=lambda: {DEFAULT_INPUT_METHOD})
    clipboard_base64: str = ""
    is_landscape: bool = False
    is_awake: bool = True

    @property
    def input_method(self) -> str:
        """The keyboard that is in use."""
        return self.settings.get(("secure", "default_input_method"), "null")

    @input_method.setter
    def input_method(self, name: str) -> None:
        self.settings[("secure", "default_input_method")] = name

    def is_on(self, setting: str) -> bool:
        """Whether a global setting such as ``wifi_on`` is 1."""
        return self.settings.get(("global", setting)) == "1"

    def turn(self, setting: str, *, on: bool) -> None:
        """Set a global setting such as ``wifi_on`` to 1 or 0."""
        self.settings[("global", setting)] = "1" if on else "0"
