"""Fetches and builds the real servers that tests run against, each once a machine.

    python -m scripts.real_parts [--quiet] [--strict] [NAME...]

Every part goes into ``${XDG_CACHE_HOME:-~/.cache}/agent-sidecar/<part>-<version>/`` through an ordinary client (mvn,
go, apt-get) as this machine has it set up. Nothing needs root. A part is built in a folder beside its place and renamed
when whole, under a lock, so that it is there or not, whoever else is at it.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

KAFKA = "4.3.0"
COLLECTOR = "0.155.0"
GRAFANA_SCHEMA, TYPESCRIPT = "13.2.3", "5.9.3"


class BuildError(Exception):
    """A part cannot be had here; the text says why, in a line."""


@dataclass(frozen=True)
class Part:
    """One server, or family of programs from one place.

    Attributes:
        needs: Programs that must be on PATH to make it and to run it.
        about_s: How long it takes cold on 2 cores, seconds; said before it starts.
        build: Makes it in the folder given; raises `BuildError` or `subprocess.CalledProcessError`.
        holds: Files, relative to its folder, without which it is not whole.
        on_path: Programs that do instead of it when all are on PATH.
    """

    name: str
    version: str
    needs: tuple[str, ...]
    about_s: int
    build: Callable[[Path, Run], None]
    holds: tuple[str, ...]
    on_path: tuple[str, ...] = ()

    @property
    def place(self) -> Path:
        """Where it is kept."""
        return cache() / f"{self.name}-{self.version}"

    def is_on_path(self) -> bool:
        """Whether the machine has it already."""
        return bool(self.on_path) and all(map(shutil.which, self.on_path))

    def is_present(self) -> bool:
        """Whether it can be used now."""
        return self.is_on_path() or all((self.place / name).exists() for name in self.holds)

    def missing_needs(self) -> list[str]:
        """Programs that it lacks, in order."""
        return [tool for tool in self.needs if shutil.which(tool) is None]


@dataclass(frozen=True)
class Outcome:
    """What became of one part; `why` is empty unless it cannot be had here."""

    part: Part
    state: Literal["present", "made", "cannot be had here"]
    why: str = ""
    took_s: float = 0.0

    def __str__(self) -> str:
        tail = f": {self.why}" if self.why else f" in {self.took_s:.0f} s" if self.state == "made" else ""
        return f"{self.part.name} {self.part.version}: {self.state}{tail}"


class Run:
    """Runs the clients, with their words kept in a log."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self, *argv: str, cwd: Path, env: dict[str, str] | None = None) -> None:
        """Runs `argv`; raises `BuildError` with the last words of a client that fails."""
        with self.log.open("ab") as out:
            done = subprocess.run(
                argv,
                cwd=cwd,
                env=os.environ | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                check=False,
            )
        if done.returncode:
            words = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
            last = words[-1][:200] if words else "it said nothing"
            raise BuildError(f"{argv[0]} ended with {done.returncode}: {last} (see {self.log})")


# --- Apache Kafka ---------------------------------------------------------------------------------------------------

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>sidecar.test</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA}</version></dependency>
  </dependencies>
</project>
"""


def build_kafka(folder: Path, run: Run) -> None:
    """The broker's jars, by Maven."""
    (folder / "pom.xml").write_text(POM)
    run(
        "mvn", "-B", "-q", "dependency:copy-dependencies", "-DoutputDirectory=lib", "-DincludeScope=runtime", cwd=folder
    )
    if not list(folder.glob(f"lib/kafka_2.13-{KAFKA}.jar")):
        raise BuildError("Maven copied no broker")


# --- OpenTelemetry Collector ----------------------------------------------------------------------------------------

CORE, CONTRIB = "go.opentelemetry.io/collector", "github.com/open-telemetry/opentelemetry-collector-contrib"
MODULES = {
    "receivers": (f"{CORE}/receiver/otlpreceiver",),
    "processors": (
        f"{CORE}/processor/batchprocessor",
        f"{CONTRIB}/processor/attributesprocessor",
        f"{CONTRIB}/processor/resourceprocessor",
        f"{CONTRIB}/processor/transformprocessor",
    ),
    "exporters": (
        f"{CORE}/exporter/otlpexporter",
        f"{CORE}/exporter/otlphttpexporter",
        f"{CONTRIB}/exporter/kafkaexporter",
    ),
    "extensions": (
        f"{CONTRIB}/extension/basicauthextension",
        f"{CONTRIB}/extension/bearertokenauthextension",
    ),
}


def manifest() -> str:
    """The builder's list of what goes into the Collector."""
    lines = [
        "dist:",
        "  name: otelcol",
        "  description: for the tests",
        "  output_path: build",
        f"  version: {COLLECTOR}",
    ]
    for kind, modules in MODULES.items():
        lines += [f"{kind}:", *(f"  - gomod: {module} v{COLLECTOR}" for module in modules)]
    return "\n".join(lines) + "\n"


def build_collector(folder: Path, run: Run) -> None:
    """An unmodified Collector of the modules above, by its own builder."""
    env = {"GOBIN": str(folder / "bin"), "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    (folder / "manifest.yaml").write_text(manifest())
    run("go", "install", f"{CORE}/cmd/builder@v{COLLECTOR}", cwd=folder, env=env)
    # -e: the builder's `go mod tidy` asks for what the tests of its modules import, too, and gives up where one of
    # those is not served. The Collector holds none of them; what it does hold and cannot have still fails the build.
    env["GOFLAGS"] += " -e"
    run(str(folder / "bin/builder"), "--config=manifest.yaml", cwd=folder, env=env)
    (folder / "build/otelcol").rename(folder / "otelcol")
    shutil.rmtree(folder / "build")
    shutil.rmtree(folder / "bin")


# --- Prometheus, promtool, Alertmanager -----------------------------------------------------------------------------

PROMETHEUS = ("prometheus", "promtool", "prometheus-alertmanager", "amtool")


def build_prometheus(folder: Path, run: Run) -> None:
    """Debian's packages, unpacked without installing: no root, and no daemon is started."""
    names = ("prometheus", "prometheus-alertmanager")
    try:
        run("apt-get", "download", *names, cwd=folder)
    except BuildError:  # a machine whose lists were never fetched: fetch them for ourselves
        lists = folder / "apt"
        (lists / "lists/partial").mkdir(parents=True)
        (lists / "cache/archives/partial").mkdir(parents=True)
        own = ("-o", f"Dir::State::lists={lists}/lists", "-o", f"Dir::Cache={lists}/cache")
        run("apt-get", *own, "update", cwd=folder)
        run("apt-get", *own, "download", *names, cwd=folder)
        shutil.rmtree(lists)
    for package in sorted(folder.glob("*.deb")):
        run("dpkg", "-x", str(package), ".", cwd=folder)
        package.unlink()


# --- Grafana's types: the nearest to a Grafana that can be had ------------------------------------------------------


def build_grafana_schema(folder: Path, run: Run) -> None:
    """The types of dashboards, and the compiler that checks one against them."""
    packages = (f"@grafana/schema@{GRAFANA_SCHEMA}", f"typescript@{TYPESCRIPT}")
    run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix=.", *packages, cwd=folder)


def distribution() -> str:
    """For instance ``debian-12``."""
    try:
        told = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    except OSError:
        told = {}
    return f"{told.get('ID', 'unknown')}-{told.get('VERSION_ID', '0')}".replace('"', "")


# --- all of them ----------------------------------------------------------------------------------------------------

PARTS = {
    part.name: part
    for part in (
        Part("kafka", KAFKA, ("java", "mvn"), 10, build_kafka, ("lib",)),
        Part("collector", COLLECTOR, ("go",), 180, build_collector, ("otelcol",)),
        Part(
            "prometheus",
            distribution(),
            ("apt-get", "dpkg"),
            15,
            build_prometheus,
            tuple(f"usr/bin/{name}" for name in PROMETHEUS),
            on_path=PROMETHEUS,
        ),
        Part(
            "grafana-schema",
            GRAFANA_SCHEMA,
            ("node", "npm"),
            5,
            build_grafana_schema,
            ("node_modules/typescript/bin/tsc", "node_modules/@grafana/schema/package.json"),
        ),
    )
}


class AbsentError(Exception):
    """A part is not there to be used; the text names it and says why."""


def folder(name: str) -> Path:
    """Where the part `name` is.

    Raises:
        AbsentError: It is not there, or what runs it is not.
    """
    part = PARTS[name]
    if not part.is_present():
        lacking = part.missing_needs()
        why = f"no {' and no '.join(lacking)} on PATH" if lacking else "not in the cache, `make real-parts` says why"
        raise AbsentError(f"{name}: {why}")
    if name == "kafka" and shutil.which("java") is None:
        raise AbsentError("kafka: no java on PATH")
    return part.place


def program(name: str) -> str:
    """The path of one of Prometheus' programs, or of the Collector (``otelcol``).

    Raises:
        AbsentError: It is not there.
    """
    if name == "otelcol":
        return str(folder("collector") / name)
    part = PARTS["prometheus"]
    found = shutil.which(name) if part.is_on_path() else None
    return found or str(folder("prometheus") / "usr/bin" / name)


def cache() -> Path:
    """The folder that keeps all parts."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "agent-sidecar"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`; whoever comes second waits."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make(part: Part, *, announce: Callable[[str], None] = lambda _: None) -> Outcome:
    """Sees to it that `part` is there."""
    if part.is_present():
        return Outcome(part, "present")
    if lacking := part.missing_needs():
        return Outcome(part, "cannot be had here", f"no {' and no '.join(lacking)} on PATH")
    part.place.parent.mkdir(parents=True, exist_ok=True)
    with locked(part.place.with_name(part.place.name + ".lock")):
        if part.is_present():  # somebody else made it meanwhile
            return Outcome(part, "present")
        announce(f"{part.name} {part.version}: being made (about {part.about_s} s) …")
        began = time.monotonic()
        half, log = (part.place.with_name(part.place.name + end) for end in (".part", ".log"))
        log.unlink(missing_ok=True)
        for old in (half, part.place):
            shutil.rmtree(old, ignore_errors=True)
        half.mkdir()
        try:
            part.build(half, Run(log))
            if lacking := [name for name in part.holds if not (half / name).exists()]:
                raise BuildError(f"it came without {', '.join(lacking)} (see {log})")
            half.rename(part.place)
        except (BuildError, OSError) as error:
            shutil.rmtree(half, ignore_errors=True)
            return Outcome(part, "cannot be had here", str(error), time.monotonic() - began)
        log.unlink(missing_ok=True)
        return Outcome(part, "made", took_s=time.monotonic() - began)


def main(argv: list[str] | None = None) -> int:
    """The command; 0 unless a part is lacking and `--strict` was given."""
    parser = argparse.ArgumentParser(prog="python -m scripts.real_parts", description=__doc__.splitlines()[0])
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"parts wanted: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quiet", action="store_true", help="say nothing of parts that are present")
    parser.add_argument("--strict", action="store_true", help="end with 1 when a part cannot be had here")
    asked = parser.parse_args(argv)
    if unknown := [name for name in asked.names if name not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}")
    lacking = 0
    for name in asked.names or PARTS:
        outcome = make(PARTS[name], announce=lambda words: print(words, flush=True))
        lacking += outcome.state == "cannot be had here"
        if not (asked.quiet and outcome.state == "present"):
            print(outcome, flush=True)
    return 1 if lacking and asked.strict else 0


if __name__ == "__main__":
    sys.exit(main())
