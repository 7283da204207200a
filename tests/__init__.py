"""Tests, a folder for each side of the sidecar."""
