"""Coverage-guided fuzzing of what reads agents' telemetry; `harness.py` says how to run it."""
