"""Each real part starts, does the one thing it is for, and is gone afterwards."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.request
from pathlib import Path

import pytest
from kafka import KafkaConsumer

from tests.real.parts import is_answering


@pytest.mark.broker
def test_kafka_gives_back_what_it_was_given(kafka_broker):
    topic = kafka_broker.make_topic("smoke")
    with contextlib.closing(kafka_broker.producer()) as producer:
        producer.send(topic, b"one")
        producer.flush()
    with contextlib.closing(
        KafkaConsumer(topic, bootstrap_servers=kafka_broker.address, auto_offset_reset="earliest")
    ) as consumer:
        assert [record.value for records in consumer.poll(20_000).values() for record in records] == [b"one"]


COLLECTOR = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:PORT_HTTP"}}}}
exporters: {otlphttp: {endpoint: "http://127.0.0.1:1"}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [otlphttp]}}
"""


@pytest.mark.collector
def test_collector_takes_otlp_and_ends_when_told(collector):
    started = collector(COLLECTOR)
    request = urllib.request.Request(
        f"http://127.0.0.1:{started.ports['http']}/v1/traces", b"{}", {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
    started.stop()
    assert not is_answering(started.ports["http"])


@pytest.mark.prometheus
def test_prometheus_answers_a_query(prometheus):
    answer = json.loads(prometheus("global: {scrape_interval: 1s}").get("/api/v1/query?query=1%2B1"))
    assert answer["data"]["result"][1] == "2"


@pytest.mark.prometheus
def test_promtool_refuses_a_broken_rule(promtool, tmp_path: Path):
    rules = tmp_path / "rules.yml"
    rules.write_text("groups: [{name: a, rules: [{alert: A, expr: 'sum('}]}]")
    assert subprocess.run([promtool, "check", "rules", rules], capture_output=True, check=False).returncode != 0
