"""Agent Sidecar: watches a deployed AI agent's OpenTelemetry and pauses its session before the next act."""

__version__ = "0.1.0"
