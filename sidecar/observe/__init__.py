"""What is seen from outside: metrics, logs, and the HTTP door for both Prometheus and probes."""
