"""Tests against real servers: Kafka, the OpenTelemetry Collector, Prometheus."""
