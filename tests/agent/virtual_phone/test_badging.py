"""What aapt prints becomes facts; manifests are written as Android reads them."""

from __future__ import annotations

import struct

import pytest

from agent.virtual_phone.axml import Element, encode
from agent.virtual_phone.badging import ApkUnreadable, complete_name, parse

BADGING = """\
package: name='io.appium.settings' versionCode='55' versionName='5.9.1' platformBuildVersionName='13'
sdkVersion:'21'
targetSdkVersion:'33'
uses-permission: name='android.permission.INTERNET'
uses-permission: name='android.permission.CAMERA' maxSdkVersion='32'
application-label:'Appium Settings'
launchable-activity: name='io.appium.settings.Settings'  label='' icon=''
testOnly='-1'
native-code: 'arm64-v8a' 'x86'
"""
TREE = """\
N: android=http://schemas.android.com/apk/res/android
  E: manifest (line=2)
    A: package="io.appium.settings" (Raw: "io.appium.settings")
    E: instrumentation (line=5)
      A: android:name(0x01010003)=".Runner" (Raw: ".Runner")
      A: android:targetPackage(0x01010021)="io.appium.target" (Raw: "io.appium.target")
    E: application (line=9)
      E: activity (line=10)
        A: android:name(0x01010003)=".Settings" (Raw: ".Settings")
      E: activity-alias (line=12)
        A: android:name(0x01010003)="io.appium.Alias" (Raw: "io.appium.Alias")
      E: service (line=14)
        A: android:name(0x01010003)="Location" (Raw: "Location")
      E: receiver (line=16)
        A: android:name(0x01010003)=".receivers.Clipboard" (Raw: ".receivers.Clipboard")
"""


def test_facts_are_read_from_what_aapt_prints() -> None:
    badging = parse(BADGING, TREE, signed_by="aa")
    assert (badging.package, badging.version_code, badging.version_name) == ("io.appium.settings", 55, "5.9.1")
    assert (badging.minimum_sdk, badging.target_sdk) == (21, 33)
    assert badging.permissions == ("android.permission.INTERNET", "android.permission.CAMERA")
    assert badging.abis == ("arm64-v8a", "x86")
    assert badging.launchable_activity == "io.appium.settings.Settings"
    assert badging.activities == {"io.appium.settings.Settings", "io.appium.Alias"}
    assert badging.services == {"io.appium.settings.Location"}
    assert badging.receivers == {"io.appium.settings.receivers.Clipboard"}
    assert [(runner.name, runner.target) for runner in badging.instrumentations] == [
        ("io.appium.settings.Runner", "io.appium.target")
    ]
    assert badging.is_test_only
    assert badging.signer == "aa"


def test_what_is_not_said_has_a_default() -> None:
    badging = parse("package: name='a.b' versionCode='' versionName=''", "", signed_by=None)
    assert (badging.version_code, badging.label, badging.launchable_activity) == (0, "a.b", None)
    assert (badging.minimum_sdk, badging.target_sdk, badging.abis, badging.is_test_only) == (1, 1, (), False)


def test_label_is_that_of_the_manifest_where_it_is_no_resource() -> None:
    tree = '    E: application (line=1)\n      A: android:label(0x01010001)="Demo" (Raw: "Demo")\n'
    assert parse("package: name='a.b' versionCode='1' versionName='1'", tree, signed_by=None).label == "Demo"


@pytest.mark.parametrize("text", ["", "garbage", "package: versionCode='1'"])
def test_badging_without_a_package_is_refused(text: str) -> None:
    with pytest.raises(ApkUnreadable, match="INSTALL_PARSE_FAILED_BAD_MANIFEST"):
        parse(text, "", signed_by=None)


@pytest.mark.parametrize(("name", "complete"), [(".Main", "a.b.Main"), ("Main", "a.b.Main"), ("c.Main", "c.Main")])
def test_short_name_of_a_component_is_completed(name: str, complete: str) -> None:
    assert complete_name("a.b", name) == complete


def test_manifest_chunks_fill_their_document() -> None:
    inner = Element(tag="application", android={"label": "Ä" * 200, "debuggable": True})
    document = encode(Element(tag="manifest", plain={"package": "a.b"}, android={"versionCode": 7}, children=(inner,)))
    kind, header, size = struct.unpack_from("<HHI", document)
    assert (kind, header, size) == (0x0003, 8, len(document))
    kinds, at = [], header
    while at < len(document):
        kind, _, size = struct.unpack_from("<HHI", document, at)
        assert size % 4 == 0
        kinds.append(kind)
        at += size
    assert at == len(document)
    # Strings, resource ids, and in a namespace: manifest begins, application begins, application ends, manifest ends.
    assert kinds == [0x0001, 0x0180, 0x0100, 0x0102, 0x0102, 0x0103, 0x0103, 0x0101]


def test_attribute_that_android_does_not_know_cannot_be_written() -> None:
    with pytest.raises(KeyError, match="colour"):
        encode(Element(tag="manifest", android={"colour": "red"}))
