"""What runs tests on a device."""
