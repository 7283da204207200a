"""Tests of the pure core: no I/O, any order."""
