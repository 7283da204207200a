"""The configurations that we ship for a whole stack, judged by the programs that read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.mark.collector
def test_the_collector_takes_the_overlay_for_kafka(otelcol):
    configs = [f"--config={ROOT / 'deploy' / name}" for name in ("collector.yaml", "collector-kafka.yaml")]
    done = subprocess.run([otelcol, "print-config", *configs], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    pipelines = yaml.safe_load(done.stdout)["service"]["pipelines"]
    assert [pipelines[signal]["exporters"] for signal in ("traces", "logs")] == [["kafka"], ["kafka"]]
    assert all("transform/strip" in pipeline["processors"] for pipeline in pipelines.values())


@pytest.mark.prometheus
def test_prometheus_takes_its_configuration_and_rules(promtool, tmp_path):
    shutil.copy(ROOT / "deploy/prometheus.yaml", tmp_path)
    shutil.copy(ROOT / "dashboards/alerts.rules.yaml", tmp_path)
    done = subprocess.run([promtool, "check", "config", tmp_path / "prometheus.yaml"], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert b"SUCCESS: 18 rules found" in done.stdout
