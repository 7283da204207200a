"""What we ship to start the sidecar with: paths exist, images have versions, nothing is open that need not be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.config import read

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
KAFKA_ENV = [line for line in (DEPLOY / "kafka.env").read_text().splitlines() if line and not line.startswith("#")]
SETTINGS: dict[str, dict[str, str]] = {"default": {}, "kafka.env": dict(line.split("=", 1) for line in KAFKA_ENV)}


def docker_lines() -> Iterator[tuple[str, str]]:
    """The Dockerfile's instructions."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.strip().partition(" ")
            yield word, rest


def with_settings(text: str, settings: dict[str, str]) -> str:
    """`text` with Compose's ``${NAME:-default}`` filled in."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: settings.get(match[1], match[2]), text)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_file_that_compose_mounts_is_there_and_read_only(settings):
    mounted = 0
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source, target, *how = with_settings(volume, settings).split(":")
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
                assert how == ["ro"], f"{source} can be written by a container"
                mounted += 1
            else:
                assert source in COMPOSE["volumes"], source
            assert target.startswith("/")
    assert mounted >= 7


def test_what_compose_uses_of_the_settings_is_set():
    for name in SETTINGS["kafka.env"]:
        assert name == "COMPOSE_PROFILES" or f"${{{name}:-" in (DEPLOY / "compose.yaml").read_text()
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", ())}
    assert profiles == {SETTINGS["kafka.env"]["COMPOSE_PROFILES"]}


def test_compose_publishes_on_loopback_alone():
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_image_has_a_version():
    images = [service["image"] for service in SERVICES.values()]
    images += [rest.split(" ")[0] for word, rest in docker_lines() if word == "FROM"]
    for image in images:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+[\w.-]*", image), image


def test_the_services_that_we_configure_run_with_little():
    for name in ("sidecar", "collector", "prometheus", "grafana"):
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert not any("privileged" in service or "docker.sock" in str(service) for service in SERVICES.values())


def test_the_image_runs_as_nobody_in_particular():
    lines = list(docker_lines())
    users = [rest for word, rest in lines if word == "USER"]
    assert users == ["10001:10001"]
    after = [word for word, _ in lines[lines.index(("USER", users[0])) :]]
    assert "RUN" not in after
    assert "COPY" not in after
    assert not [word for word, _ in lines if word == "ADD"]
    assert all(rest.startswith("[") for word, rest in lines if word in ("ENTRYPOINT", "CMD"))


def test_no_secret_is_written_down():
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            for line in path.read_text().splitlines():
                found = re.search(r"(?i)(password|secret|token|key)\w*\s*[:=]\s*[\"']?[\w+/-]{6,}", line)
                assert found is None or line.lstrip().startswith("#"), f"{path.name}: {line}"


def test_what_is_copied_into_the_image_is_what_the_package_needs():
    """Docker's own rule: the last line that matches decides; here all is left out but what is named."""
    lines = [
        line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    assert lines[0] == "*"
    let_in = [line[1:] for line in lines if line.startswith("!")]
    assert {"pyproject.toml", "constraints.txt", "LICENSE", "sidecar"} <= set(let_in)
    for name in let_in:
        assert name == "README.md" or (ROOT / name).exists(), name
    copied = [rest.split() for word, rest in docker_lines() if word == "COPY"]
    assert copied == [[".", "."], ["--from=build", "/opt/sidecar", "/opt/sidecar"]]


@pytest.mark.parametrize("name", ["sidecar.yaml", "sidecar-kafka.yaml"])
def test_the_sidecars_configuration_is_taken(name):
    config = read(DEPLOY / name)
    assert config.warnings() == []
    assert bool(config.kafka) == ("kafka" in name)


def test_ports_are_those_that_the_sidecar_listens_on():
    config = read(DEPLOY / "sidecar.yaml")
    environment = SERVICES["collector"]["environment"]
    assert environment["SIDECAR_OTLP"] == config.otlp.grpc
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    assert job["static_configs"] == [{"targets": [config.observe.http]}]
    assert str(config.observe.http) in dict(docker_lines())["HEALTHCHECK"]
    published = {port.split(":")[-1] for port in SERVICES["sidecar"]["ports"]}
    assert {environment[name].split(":")[1] for name in ("OTLP_GRPC", "OTLP_HTTP")} < published
    (topics,) = SERVICES["topics"]["command"]
    assert all(name in topics for name in read(DEPLOY / "sidecar-kafka.yaml").kafka[0].topics)


def test_grafana_finds_what_prometheus_and_we_give_it():
    environment, volumes = SERVICES["grafana"]["environment"], SERVICES["grafana"]["volumes"]
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "$PROMETHEUS_URL"
    assert environment["PROMETHEUS_URL"].endswith(":9090")
    scraping = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraping
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/sidecar.yaml").read_text())["providers"]
    place = f"{provider['options']['path']}/sidecar.json"
    assert f"../dashboards/sidecar.json:{place}:ro" in volumes
    assert environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == place
