"""Benchmarks against peers, run by hand; never part of the tests."""
