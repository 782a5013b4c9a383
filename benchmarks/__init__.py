"""Benchmarks of the session server; run by ``make bench``. Reported, never asserted."""
