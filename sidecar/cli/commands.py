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
RUNNING, OPERATING, RECORDED, LOOKING = "Running", "Operating", "On recorded telemetry", "Looking in"
POSTURES = ("observe", "guard", "enforce")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file; without it all defaults hold.")]
PostureOption = Annotated[str, typer.Option(help="observe, guard or enforce.")]
At = Annotated[str | None, typer.Option("--at", help="Operators' door: unix:/path or host:port.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Goes on record.")]
NeededReason = Annotated[str, typer.Option("--reason", "-r", help="Goes on record.", prompt=False)]
SessionArgument = Annotated[str | None, typer.Argument(help="A session's id.")]
Realm = Annotated[str, typer.Option(help="Where ids are in more than one realm.")]
Role = Annotated[str | None, typer.Option(help="All sessions of an agent role.")]
Fleet = Annotated[bool, typer.Option("--fleet", help="All sessions.")]
Clears = Annotated[list[str] | None, typer.Option("--clear", help="Findings cleared; all that hold it if left out.")]
Tree = Annotated[bool, typer.Option("--tree", help="The session and all that it started.")]
Without = Annotated[list[str] | None, typer.Option(help="Leave out: cues, reasoning.")]


@app.command("run", rich_help_panel=RUNNING)
def run_command(config: ConfigOption = None) -> int:
    """Run the sidecar: OTLP in, the gate, detectors, control API, metrics. Nothing else is needed beside it."""
    import asyncio
    import gc

    gc.disable()  # nothing of what is loaded now will ever go; `App` enables it again
    from sidecar.app import run as serve
    from sidecar.config import read

    return asyncio.run(serve(read(config)))


@app.command(rich_help_panel=RUNNING)
def demo(
    once: Annotated[bool, typer.Option("--once", help="End by itself.")] = False,
    ungated: Annotated[bool, typer.Option("--ungated", help="Take the gate out: the tool is called directly.")] = False,
    sidecar_stopped: Annotated[
        bool, typer.Option("--sidecar-stopped", help="Stop the sidecar just before the mail is written.")
    ] = False,
    tone: Annotated[str | None, typer.Option(help="Another mailbox: how the threat sounds.")] = None,
    save_svg: Annotated[Path | None, typer.Option(help="Draw what came of it into this file, too.")] = None,
    json: Json = False,
) -> int:
    """Play a small fleet of agents, one of which turns, beside a sidecar of its own; show the pause as it happens."""
    from sidecar.cli.demo import Screen
    from sidecar.cli.demo import demo as command

    return command(
        Screen(as_json=json), once=once, ungated=ungated, stopped=sidecar_stopped, tone=tone, save_svg=save_svg
    )


@app.command(rich_help_panel=OPERATING)
def sessions(
    session: Annotated[str | None, typer.Argument(help="One session, with all that holds it.")] = None,
    held: Annotated[bool, typer.Option("--held", help="Only those that are paused.")] = False,
    at: At = None,
    json: Json = False,
) -> int:
    """List sessions, the held ones first."""
    from sidecar.cli.operate import sessions as command

    return command(Terminal(as_json=json), at, session, held=held)


@app.command(rich_help_panel=OPERATING)
def alerts(
    alert: Annotated[str | None, typer.Argument(help="One alert (or how its name begins), with its evidence.")] = None,
    resolved: Annotated[bool, typer.Option("--all", help="Resolved ones, too.")] = False,
    at: At = None,
    json: Json = False,
) -> int:
    """List alerts, the newest first."""
    from sidecar.cli.operate import alerts as command

    return command(Terminal(as_json=json), at, alert, resolved=resolved)


@app.command(rich_help_panel=OPERATING)
def review(
    alert: Annotated[str, typer.Argument(help="An alert, or how its name begins.")],
    verdict: Annotated[str, typer.Argument(help="true_positive, false_positive or benign_expected.")],
    reason: Reason = "",
    at: At = None,
    json: Json = False,
) -> int:
    """Close an alert with a verdict."""
    from sidecar.cli.operate import review as command

    return command(Terminal(as_json=json), at, alert, verdict, reason)


@app.command(rich_help_panel=OPERATING)
def approvals(
    decision: Annotated[str | None, typer.Argument(help="A held act (or how its name begins), to decide.")] = None,
    approve: Annotated[bool | None, typer.Option("--approve/--deny", help="Let it run, or not.")] = None,
    reason: Reason = "",
    decided: Annotated[bool, typer.Option("--all", help="Decided ones, too.")] = False,
    at: At = None,
    json: Json = False,
) -> int:
    """List held acts and escalations, or decide about one."""
    from sidecar.cli.operate import approvals as command

    return command(Terminal(as_json=json), at, decision, approve=approve, reason=reason, decided=decided)


@app.command(rich_help_panel=OPERATING)
def pause(
    reason: NeededReason,
    session: SessionArgument = None,
    realm: Realm = "",
    role: Role = None,
    fleet: Fleet = False,
    tree: Tree = False,
    at: At = None,
    json: Json = False,
) -> int:
    """Hold a session before its next act; with --role or --fleet also what opens later."""
    from sidecar.cli import operate

    scope = operate.scope_of(session, realm=realm, role=role, fleet=fleet, tree=tree)
    return operate.pause(Terminal(as_json=json), at, scope, reason)


@app.command(rich_help_panel=OPERATING)
def resume(
    reason: NeededReason,
    session: SessionArgument = None,
    realm: Realm = "",
    role: Role = None,
    fleet: Fleet = False,
    tree: Tree = False,
    clears: Clears = None,
    at: At = None,
    json: Json = False,
) -> int:
    """Let a session go on, answering the pause that holds it now."""
    from sidecar.cli import operate

    scope = operate.scope_of(session, realm=realm, role=role, fleet=fleet, tree=tree)
    return operate.resume(Terminal(as_json=json), at, scope, reason, clears)


@app.command(rich_help_panel=OPERATING)
def terminate(
    reason: NeededReason,
    session: SessionArgument = None,
    realm: Realm = "",
    role: Role = None,
    fleet: Fleet = False,
    tree: Tree = False,
    at: At = None,
    json: Json = False,
) -> int:
    """End a session for good."""
    from sidecar.cli import operate

    scope = operate.scope_of(session, realm=realm, role=role, fleet=fleet, tree=tree)
    return operate.terminate(Terminal(as_json=json), at, scope, reason)


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
def doctor(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Recordings as for replay, -: stdin; none: what the sidecar has received lately."),
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent role.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Without files: how far to look back.")] = 15.0,
    config: ConfigOption = None,
    json: Json = False,
) -> int:
    """Say what of each agent can be seen, what that makes undetectable, and the switch that turns it on."""
    from sidecar.cli.doctor import doctor as command

    return command(Terminal(as_json=json), files or [], agent=agent, last_s=minutes * 60, config=config)


@app.command(rich_help_panel=LOOKING)
def exposure(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[AGENT] [FILES]...",
            help="An agent role, and recordings as for replay; without files: what the sidecar has received lately.",
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Without files: how far to look back.")] = 24 * 60.0,
    suggest: Annotated[bool, typer.Option("--suggest", help="Write an allow-list, as configuration.")] = False,
    out: Annotated[Path | None, typer.Option(help="With --suggest: into this file.")] = None,
    config: ConfigOption = None,
    json: Json = False,
) -> int:
    """Say what an agent has shown it can do, what it was granted and never used; suggest an allow-list."""
    from sidecar.cli.exposure import exposure as command

    if out is not None and not suggest:
        raise ConfigError("only goes with --suggest", key="--out")
    return command(Terminal(as_json=json), files or [], last_s=minutes * 60, config=config, suggest=suggest, out=out)


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
