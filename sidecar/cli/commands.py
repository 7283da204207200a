"""The commands, grouped as `sidecar --help` shows them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidecar import __version__
from sidecar.cli.terminal import UNSURE, Terminal
from sidecar.errors import ConfigError, SidecarError

if TYPE_CHECKING:
    from sidecar.core.triage.policy import Posture

app = typer.Typer(
    name="sidecar",
    help="Watches deployed AI agents' OpenTelemetry, and pauses a session before its next act.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
RUNNING, RECORDED, LOOKING = "Running", "On recorded telemetry", "Looking in"
POSTURES = ("observe", "guard", "enforce")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; without it all defaults hold.")]
PostureOption = Annotated[str, typer.Option(help="observe, guard or enforce.")]
Without = Annotated[list[str] | None, typer.Option(help="Leave out: cues, reasoning.")]


@app.command(rich_help_panel=RECORDED)
def replay(
    files: Annotated[
        list[str], typer.Argument(help="OTLP/JSON lines or delimited protobuf, gzipped or not; -: stdin.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for decisions.jsonl, findings.jsonl and sessions.jsonl.")],
    posture: PostureOption = "guard",
    without: Without = None,
    export_delay: Annotated[float, typer.Option(help="Seconds after its end when a span is evidence.", min=0)] = 0.0,
    no_gate: Annotated[bool, typer.Option("--no-gate", help="No gate: acts have run when they are seen.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Write events.jsonl, too: what was understood.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad record.")] = False,
    json: Json = False,
) -> int:
    """Play recorded telemetry as if live, the gate asked before each act."""
    from sidecar.cli.replay import replay as command

    return command(
        Terminal(as_json=json), files, out, posture=_posture(posture), without=_without(without),
        export_delay_s=export_delay, gate=not no_gate, events=events, strict=strict,
    )  # fmt: skip


@app.command(rich_help_panel=RECORDED)
def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Recordings, each played alone from a cold start.")],
    labels: Annotated[list[Path], typer.Option(help="NAME.labels.jsonl for NAME.otlp.jsonl; once a file.")],
    out: Annotated[Path | None, typer.Option(help="Keep replay's files in OUT/<corpus>/.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report to this file.")] = None,
    posture: PostureOption = "enforce",
    without: Without = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Corpora at a time.")] = 2,
) -> int:
    """Measure detection on labelled recordings: AUC, TPR, what was prevented, false alarms, the misses by name."""
    from sidecar.cli.evaluate import evaluate as command

    return command(
        Terminal(), files, labels, out=out, report_json=json_file, report_html=report, posture=_posture(posture),
        without=_without(without), jobs=jobs,
    )  # fmt: skip


@app.command(rich_help_panel=LOOKING)
def detectors(
    name: Annotated[str | None, typer.Argument(help="One detector, with its options and examples.")] = None,
    config: ConfigOption = None,
    json: Json = False,
) -> int:
    """List the detectors, their severity and how far policy may go because of them."""
    from sidecar.cli.inspect import detectors as command

    return command(Terminal(as_json=json), name, config)


@app.command(rich_help_panel=LOOKING)
def tools(
    name: Annotated[str, typer.Argument(help="A tool's name, as agents call it.")],
    arguments: Annotated[str, typer.Argument(help="Its arguments, a JSON object.")] = "",
    config: ConfigOption = None,
    json: Json = False,
) -> int:
    """Say what the catalogue sees in a tool call: what it does, and whether it can be undone."""
    from sidecar.cli.inspect import tools as command

    return command(Terminal(as_json=json), name, arguments, config)


@app.command(rich_help_panel=RUNNING)
def check(config: Annotated[Path, typer.Argument(help="YAML file.")], json: Json = False) -> int:
    """Check a configuration without starting anything."""
    from sidecar.cli.inspect import check as command

    return command(Terminal(as_json=json), config)


settings = typer.Typer(help="The configuration.", no_args_is_help=True)
app.add_typer(settings, name="config", rich_help_panel=RUNNING)


@settings.command("show")
def config_show(config: ConfigOption = None, json: Json = False) -> int:
    """Print every setting in force, what it means, and whether the file gave it."""
    from sidecar.cli.inspect import show_config

    return show_config(Terminal(as_json=json), config)


def _posture(word: str) -> Posture:
    return _one_of(word, "--posture", POSTURES)  # type: ignore[return-value]


def _without(words: list[str] | None) -> frozenset[str]:
    return frozenset(_one_of(word, "--without", ("cues", "reasoning")) for word in words or ())


def _one_of(word: str, key: str, words: tuple[str, ...]) -> str:
    if word not in words:
        raise ConfigError(f"expected one of {', '.join(words)}, not {word!r}", key=key)
    return word


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sidecar {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
def _root(version: Version = False) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Runs one command; its exit code: 0 fine, 1 the answer is no, 2 cannot tell."""
    try:
        answer = app(arguments, standalone_mode=False)
    except typer.Exit as done:
        return done.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except SidecarError as error:
        Terminal().warn(f"sidecar: {error}")
        return UNSURE
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own usage errors
            raise
        Terminal().warn(f"sidecar: {error.format_message()}")
        return UNSURE
    return answer if isinstance(answer, int) else 0
