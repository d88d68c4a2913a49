"""A virtual Android phone: an adb daemon, a package manager and a UiAutomator2 server in one small process.

Real ``adb``, real Appium with its real driver and real AppWright talk to it as to a phone on a cable:

* ``transport`` speaks the adb wire protocol, ``services`` opens what a host asks for (shell, sync, forwarded ports),
* ``shell`` reads a command line and ``commands`` holds the programs and services of the phone,
* ``packages`` installs real APKs (read with ``aapt``) and ``apk`` can build one,
* ``screens`` is the app under test, described by a TOML file, and ``uiautomator`` drives it,
* ``faults`` are what can go wrong on demand, at start or while the phone runs,
* ``lab`` runs several phones beside a private adb server.

What the phone does not know it refuses, as a phone would, and writes down with the word ``UNKNOWN`` in its log.
"""
