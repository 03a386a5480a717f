"""Fuzzing of what strangers send: PDUs, command sets, data sets. ``python -m tests.fuzz --help``."""
