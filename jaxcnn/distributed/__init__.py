"""Devices and processes; knows no network and no config."""
