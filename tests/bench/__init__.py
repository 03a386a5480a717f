"""Benchmarks: measured against peers in one run, never asserted."""
