"""Real servers for tests, each on free ports of 127.0.0.1 and in a folder of the test's own.

`kafka_broker` runs once a session; `collector` and `prometheus` start one for each configuration asked for. They die
with the test run, however it ends. What this machine cannot give is skipped by name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from scripts import real_parts

START_S = 60.0
"""How long a server may take to answer before its test fails; a loaded machine is slow, a broken one never answers."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def is_answering(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A process that serves, with its words in ``<name>.log`` of its folder; it dies when this process does."""

    def __init__(self, name: str, folder: Path, argv: list[str], env: dict[str, str] | None = None) -> None:
        self.log = folder / f"{name}.log"
        # The kernel's own promise, kept even when pytest is killed; without setpriv the fixtures' ends must do.
        leash = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                leash + argv, cwd=folder, env=os.environ | (env or {}), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def wait_until(self, is_up: Callable[[], bool]) -> None:
        """Waits until `is_up`; fails the test with the server's last words when it ends or never is."""
        deadline = time.monotonic() + START_S
        while not is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = self.log.read_text(errors="replace")[-3000:]
                self.kill()
                pytest.fail(f"{self.log.stem} did not start:\n{words}", pytrace=False)
            time.sleep(0.05)

    def is_running(self) -> bool:
        """Whether it lives."""
        return self._process.poll() is None

    def stop(self, within_s: float = 20.0) -> None:
        """Asks it to end; kills it when it does not."""
        if self.is_running():
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(within_s)
        self.kill()

    def kill(self) -> None:
        """Ends it at once."""
        if self.is_running():
            self._process.kill()
        self._process.wait()


def part(look: Callable[[], str | Path]) -> str:
    """What `look` finds; skips the test by name where it is not to be had."""
    try:
        return str(look())
    except real_parts.AbsentError as absent:
        pytest.skip(f"real part not to be had here: {absent}")


# --- Kafka -----------------------------------------------------------------------------------------------------------

JAVA = ("-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true")

PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{control}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{control}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=2000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.retention.check.interval.ms=500
log.initial.task.delay.ms=100
num.network.threads=2
num.io.threads=4
"""


class KafkaBroker:
    """One Apache Kafka broker in KRaft mode; topics are made by asking, never by themselves.

    Members of a group may be declared dead after 2 s, so that fail-over is quick; a group starts without delay.

    Attributes:
        address: ``127.0.0.1:port``, open to all.
        folder: Its files; partitions of topics are in ``data/<topic>-<partition>``.
    """

    def __init__(self, folder: Path, lib: Path, *, more: str = "", format_with: tuple[str, ...] = ()) -> None:
        """Makes its files and starts it.

        Args:
            more: Lines of ``server.properties`` that overrule ours, with ``{port}``, ``{control}`` and ``{secure}``.
            format_with: Further arguments of the storage tool, for instance users.
        """
        places = {"folder": folder, "port": free_port(), "control": free_port(), "secure": free_port()}
        self.address, self.secure_address = f"127.0.0.1:{places['port']}", f"127.0.0.1:{places['secure']}"
        self.folder, self._port, self._classpath = folder, int(str(places["port"])), f"{lib}/*"
        settings = (PROPERTIES + more).format(**places)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "server.properties").write_text(settings)
        tool = ["java", "-cp", self._classpath, "kafka.tools.StorageTool", "format", "-c", "server.properties"]
        tool += ["-t", "MkU3OEVBNTcwNTJENDM2Qg", *format_with]
        subprocess.run(tool, cwd=folder, check=True, capture_output=True)
        self.start()

    def start(self) -> None:
        """Starts it, again if need be, on the same port and with the same data."""
        argv = ["java", *JAVA, "-cp", self._classpath, "kafka.Kafka", "server.properties"]
        self._server = Server("kafka", self.folder, argv)
        self._server.wait_until(self._is_up)

    def _is_up(self) -> bool:
        if not is_answering(self._port):
            return False
        with contextlib.suppress(Exception), contextlib.closing(self.admin()) as admin:
            return bool(admin.describe_cluster())
        return False

    def stop(self) -> None:
        """Shuts it down in order."""
        self._server.stop()

    def kill(self) -> None:
        """As a machine that loses power."""
        self._server.kill()

    def admin(self) -> KafkaAdminClient:
        """A client for topics and groups; close it."""
        return KafkaAdminClient(bootstrap_servers=self.address, bootstrap_timeout_ms=5000, request_timeout_ms=5000)

    def producer(self, **config: object) -> KafkaProducer:
        """A producer that waits for the broker's word; close it."""
        return KafkaProducer(**{"bootstrap_servers": self.address, "acks": "all", "linger_ms": 0} | config)

    def make_topic(self, name: str, partitions: int = 1, **config: str) -> str:
        """Makes a topic; `config` with underscores for dots."""
        with contextlib.closing(self.admin()) as admin:
            settings = {key.replace("_", "."): value for key, value in config.items()}
            admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
        return name


@pytest.fixture(scope="session")
def kafka_lib() -> Path:
    """The folder of Kafka's jars."""
    return Path(part(lambda: real_parts.folder("kafka"))) / "lib"


@pytest.fixture(scope="session")
def kafka_broker(kafka_lib: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker for all tests; each test makes topics of its own name. A test that harms it makes its own broker."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), kafka_lib)
    yield broker
    broker.stop()


# --- OpenTelemetry Collector -----------------------------------------------------------------------------------------


class Collector:
    """A running Collector.

    Attributes:
        ports: The ports that stood as ``PORT_<NAME>`` in its configuration, by name in lower case.
    """

    def __init__(self, server: Server, ports: dict[str, int]) -> None:
        self._server, self.ports, self.log = server, ports, server.log

    def stop(self) -> None:
        """Ends it; what it holds is sent first."""
        self._server.stop()


@pytest.fixture(scope="session")
def otelcol() -> str:
    """The path of the Collector's program."""
    return part(lambda: real_parts.program("otelcol"))


@pytest.fixture
def collector(otelcol: str, tmp_path: Path) -> Iterator[Callable[..., Collector]]:
    """Starts a Collector: ``collector(config, base=file, env=…)``; `config` overrules the file `base`.

    ``PORT_X`` in `config` becomes a free port, ``ports["x"]``; it is ready when all of them answer.
    """
    running: list[Server] = []

    def start(config: str, *, base: Path | None = None, env: dict[str, str] | None = None) -> Collector:
        ports = {word.removeprefix("PORT_").lower(): free_port() for word in _port_words(config)}
        for name, port in ports.items():
            config = config.replace(f"PORT_{name.upper()}", str(port))
        folder = tmp_path / f"collector{len(running)}"
        folder.mkdir()
        (folder / "config.yaml").write_text(config)
        configs = [f"--config={file}" for file in (base, "config.yaml") if file]
        server = Server("otelcol", folder, [otelcol, *configs], env)
        running.append(server)
        server.wait_until(lambda: all(map(is_answering, ports.values())))
        return Collector(server, ports)

    yield start
    for server in running:
        server.stop()


def _port_words(config: str) -> list[str]:
    separated = "".join(letter if letter.isalnum() or letter == "_" else " " for letter in config)
    return sorted({word for word in separated.split() if word.startswith("PORT_")})


# --- Prometheus ------------------------------------------------------------------------------------------------------


class Prometheus:
    """A running Prometheus; `url` has no slash at its end."""

    def __init__(self, folder: Path, config: str) -> None:
        """Starts one with the configuration given; ready when it says so. What is in `folder`/data is its history."""
        port = free_port()
        (folder / "prometheus.yml").write_text(config)
        argv = [program("prometheus"), "--config.file=prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        self._server = Server("prometheus", folder, [*argv, f"--web.listen-address=127.0.0.1:{port}"])
        self.url = f"http://127.0.0.1:{port}"
        self._server.wait_until(self._is_ready)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return b"eady" in self.get("/-/ready")
        return False

    def get(self, path: str) -> bytes:
        """The body of an answer."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            body: bytes = answer.read()
        return body

    def stop(self) -> None:
        """Ends it."""
        self._server.stop()


def program(name: str) -> str:
    """The path of one of Prometheus' programs; skips the test where it is not to be had."""
    return part(lambda: real_parts.program(name))


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[str], Prometheus]]:
    """Starts a Prometheus with the configuration given."""
    running: list[Prometheus] = []

    def start(config: str) -> Prometheus:
        folder = tmp_path / f"prometheus{len(running)}"
        folder.mkdir()
        running.append(Prometheus(folder, config))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool."""
    return program("promtool")
