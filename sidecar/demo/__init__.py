"""`sidecar demo`: a small fleet of agents beside a real sidecar, one of which turns.

Nothing in it is played: the sidecar is `sidecar run`, each agent is a process that uses the agent library and sends
OpenTelemetry, and mail goes through an SMTP server on loopback. Only the models are scripts (`agents.py`), so that it
needs no key and ends the same way each time.
"""
