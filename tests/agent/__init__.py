"""The library that runs in an agent's process."""
