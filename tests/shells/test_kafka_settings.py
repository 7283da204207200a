"""What the Kafka source is told, and what it tells the library."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import stat

import pytest
from kafka import codec
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from pydantic import ValidationError

from sidecar.errors import ConfigError
from sidecar.sources.deadletters import DeadLetters
from sidecar.sources.kafka import KafkaSource, consumer_config, missing_libraries
from sidecar.sources.kafka_settings import KafkaSettings


def settings(**more) -> KafkaSettings:
    return KafkaSettings.model_validate({"bootstrap_servers": ["127.0.0.1:9092"]} | more)


def test_no_default_of_the_library_that_loses_messages_is_left():
    config = consumer_config(settings())
    assert config["auto_offset_reset"] == "earliest"
    assert config["enable_auto_commit"] is False
    assert config["isolation_level"] == "read_committed"
    assert config["max_poll_interval_ms"] < 300_000
    assert config["session_timeout_ms"] < 45_000
    assert config["heartbeat_interval_ms"] * 3 <= config["session_timeout_ms"]
    assert config["value_deserializer"] is None
    assert config["key_deserializer"] is None
    assert config["partition_assignment_strategy"] == [CooperativeStickyAssignor]
    assert config["allow_auto_create_topics"] is False
    assert config["check_crcs"] is True
    assert config["fetch_max_bytes"] + config["max_partition_fetch_bytes"] <= 32 * 2**20


def test_topics_are_the_collectors_own_unless_told():
    topics = settings().topics
    assert {name: (topic.signal, topic.encoding) for name, topic in topics.items()} == {
        "otlp_spans": ("traces", "otlp_proto"),
        "otlp_logs": ("logs", "otlp_proto"),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"bootstrap_servers": []},
        {"bootstrap_servers": ["no port"]},
        {"bootstrap_servers": ["kafka://host:9092"]},
        {"topics": {}},
        {"topics": {"a topic": {"signal": "traces"}}},
        {"topics": {"t": {"signal": "metrics"}}},
        {"topics": {"t": {"signal": "traces", "encoding": "jaeger_proto"}}},
        {"group_id": ""},
        {"tls": {"cert_file": "cert.pem"}},
        {"sasl": {"username": "u"}},
        {"sasl": {"username": "u", "password_file": "f", "password_env": "E"}},
        {"sasl": {"username": "u", "password": "in the file"}},
        {"in_flight": 0},
        {"auto_offset_reset": "latest"},
    ],
)
def test_what_cannot_work_is_refused(wrong):
    with pytest.raises(ValidationError):
        settings(**wrong)


def test_a_password_is_not_sent_in_clear_to_another_host():
    plain = {"mechanism": "PLAIN", "username": "u", "password_env": "E"}
    with pytest.raises(ValidationError, match="SCRAM"):
        settings(bootstrap_servers=["127.0.0.1:9092", "broker.example:9092"], sasl=plain)
    assert settings(sasl=plain).sasl
    assert settings(bootstrap_servers=["broker.example:9092"], sasl=plain, tls={}).sasl


def test_a_password_comes_from_a_file_or_the_environment_and_is_read_each_time(tmp_path, monkeypatch):
    file = tmp_path / "password"
    file.write_text("first\n")
    told = settings(sasl={"username": "u", "password_file": file})
    assert consumer_config(told)["sasl_plain_password"] == "first"
    file.write_text("second\n")
    assert consumer_config(told)["sasl_plain_password"] == "second"
    assert consumer_config(told)["security_protocol"] == "SASL_PLAINTEXT"
    monkeypatch.setenv("KAFKA_PASSWORD", "third")
    told = settings(sasl={"username": "u", "password_env": "KAFKA_PASSWORD"}, tls={})
    assert consumer_config(told)["sasl_plain_password"] == "third"
    assert consumer_config(told)["security_protocol"] == "SASL_SSL"
    assert "third" not in repr(told)


@pytest.mark.parametrize(
    "lacking",
    [
        {"sasl": {"username": "u", "password_file": "/nowhere/password"}},
        {"sasl": {"username": "u", "password_env": "SIDECAR_NO_SUCH_VARIABLE"}},
        {"tls": {"ca_file": "/nowhere/ca.pem"}},
    ],
)
def test_a_secret_that_is_not_there_stops_the_start(lacking):
    with pytest.raises(ConfigError, match="kafka"):
        KafkaSource(settings(**lacking), None, dead_letter=print, gap=print)


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(codec, "has_snappy", lambda: False)
    monkeypatch.setattr(codec, "has_lz4", lambda: True)
    monkeypatch.setattr(codec, "has_zstd", lambda: False)
    checksums, codecs = missing_libraries()
    assert "crc32c" in checksums
    assert "python-snappy, zstandard" in codecs
    assert "lz4" not in codecs
    monkeypatch.undo()
    monkeypatch.setattr(codec, "has_snappy", lambda: True)
    monkeypatch.setattr(codec, "has_lz4", lambda: True)
    assert missing_libraries() == []


async def test_a_source_that_never_ran_closes_at_once():
    await KafkaSource(settings(), None, dead_letter=print, gap=print).close()


def test_dead_letters_keep_the_bytes_and_where_they_were(tmp_path):
    keep = DeadLetters(tmp_path / "dead.jsonl", max_body=4, now_ns=lambda: 7)
    keep(b"\xff\x00 and a tail", "otlp_spans", 3, 12, "malformed")
    (line,) = (tmp_path / "dead.jsonl").read_text().splitlines()
    kept = json.loads(line)
    assert kept == {
        "at_ns": 7,
        "topic": "otlp_spans",
        "partition": 3,
        "offset": 12,
        "reason": "malformed",
        "size_bytes": 13,
        "sha256": hashlib.sha256(b"\xff\x00 and a tail").hexdigest(),
        "body": "/wAgYQ==",
    }
    assert stat.S_IMODE((tmp_path / "dead.jsonl").stat().st_mode) == 0o600


def test_dead_letters_do_not_grow_without_bound(tmp_path):
    keep = DeadLetters(tmp_path / "dead.jsonl", max_bytes=10_000, max_body=1000)
    for offset in range(100):
        keep(b"x" * 5000, "t", 0, offset, "malformed")
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 10_000
    last = [json.loads(line)["offset"] for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert not last or last[-1] == 99


def test_dead_letters_follow_no_link(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "dead.jsonl").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic"):
        DeadLetters(tmp_path / "dead.jsonl")(b"x", "t", 0, 0, "malformed")
    assert (tmp_path / "target").read_text() == "mine"
