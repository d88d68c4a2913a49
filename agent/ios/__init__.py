"""Simulators and devices of iOS, through Apple's own tools."""
