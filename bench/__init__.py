"""Benchmarks: each prints a table of what was measured beside what it must reach, and writes bench/NAME.json."""
