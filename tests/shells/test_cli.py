"""The command line: every command says what it does and how it ended, to people, to programs and in a pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
import yaml

from sidecar import __version__
from sidecar.cli.commands import app, run
from sidecar.config import Config
from sidecar.control.client import Operators
from sidecar.core.detectors import SHIPPED
from sidecar.errors import ControlError
from tests.shells.control.kit import Raw, asked, opened
from tests.shells.otlp.certificates import Authority
from tests.shells.recordings import AFFAIR, THREAT, recorded

SIDECAR = Path(sys.executable).with_name("sidecar")
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in this process: (exit code, standard output, standard error)."""

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(one) for one in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words."""
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


def written(folder: Path, settings: Any) -> Path:
    file = folder / "sidecar.yaml"
    file.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings), encoding="utf-8")
    return file


# ---------------------------------------------------------------- what there is


def test_the_commands_of_this_version_are_there() -> None:
    wanted = {"run", "check", "replay", "evaluate", "sessions", "alerts", "review", "approvals", "pause", "resume",
              "terminate", "detectors", "tools"}  # fmt: skip
    assert {words[0] for words in COMMANDS} >= wanted
    assert ("config", "show") in COMMANDS


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_says_what_it_and_its_options_are_for(words: tuple[str, ...], cli: Cli) -> None:
    code, out, err = cli(*words, "--help")
    assert (code, err) == (0, "")
    command = COMMANDS[words]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", ""), f"{parameter.name} says nothing"
        for name in parameter.opts:
            assert name.strip("-").upper() in out.upper().replace("\n", "")


def test_help_groups_all_commands(cli: Cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    assert all(words[0] in out for words in COMMANDS)
    for title in ("Running", "Operating", "On recorded telemetry", "Looking in"):
        assert title in out


def test_version(cli: Cli) -> None:
    assert cli("--version") == (0, f"sidecar {__version__}\n", "")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["nonsense"], "nonsense"), (["check"], "config"), (["sessions", "--nonsense"], "--nonsense"),
        (["replay", "x"], "--out"), (["pause", "s"], "--reason"), (["evaluate", "x"], "--labels"),
        (["replay", "x", "--out", "o", "--posture", "loose"], "expected one of observe, guard, enforce"),
        (["replay", "x", "--out", "o", "--without", "sense"], "expected one of cues, reasoning"),
        (["replay", "x", "--out", "o", "--export-delay", "-1"], "export-delay"),
        (["pause", "-r", "why"], "name one of"), (["pause", "s", "--fleet", "-r", "why"], "name one of"),
        (["resume", "--role", "a", "--fleet", "-r", "why"], "name one of"),
        (["tools", "x", "{"], "no JSON"), (["config"], ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_mistake_on_the_command_line_is_told_in_a_line_and_ends_with_2(argv: list[str], says: str, cli: Cli) -> None:
    code, out, err = cli(*argv)
    assert code == 2
    assert says in err + (out if argv == ["config"] else "")
    assert "Traceback" not in err


# ---------------------------------------------------------------- secrets (row 89)

SECRET = "hunter2-very-secret"


@pytest.mark.parametrize("words", COMMANDS, ids="row 89, {}".format)
@pytest.mark.parametrize("option", ["--token", "--password", "--key", "--secret"])
def test_row_89_no_command_takes_a_secret_as_an_argument_or_repeats_one(
    words: tuple[str, ...], option: str, cli: Cli
) -> None:
    """Everybody on the machine can read arguments: secrets come by files and the environment."""
    assert option not in {name for parameter in COMMANDS[words].params for name in parameter.opts}
    for argv in ((*words, option, SECRET), (*words, f"{option}={SECRET}")):
        code, out, err = cli(*argv)
        assert code == 2
        assert SECRET not in out + err


# ---------------------------------------------------------------- check and config show


def test_check_takes_a_good_configuration_and_warns(tmp_path: Path, cli: Cli) -> None:
    file = written(tmp_path, {"gate": {"hold": "20m"}})
    assert cli("check", file) == (0, f"{file}: fine\n", "")
    file = written(tmp_path, {"owners": [{"role": "*", "owner": "a"}, {"role": "b", "owner": "c"}]})
    code, out, err = cli("check", file)
    assert (code, out) == (0, f"{file}: fine, with warnings\n")
    assert "warning: owners[1]: never reached" in err
    code, out, _ = cli("check", file, "--json")
    assert (code, json.loads(out)["ok"], len(json.loads(out)["warnings"])) == (0, True, 1)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gate": {"fail_mod": "open"}}, "gate.fail_mod: there is no such setting; did you mean 'fail_open'?"),
        ("gate: [", "line 1"),
        ({"sensitive": {"patterns": [{"name": "mine", "regex": "(a"}]}}, "sensitive.patterns (mine)"),
        ({"otlp": {"tls": {"certificate": "/none", "key": "/none"}}}, "otlp.tls.certificate"),
        ({"control": {"credentials": {"file": "/none"}}}, "/none"),
    ],
)
def test_check_refuses_with_file_and_key(tmp_path: Path, cli: Cli, settings: Any, says: str) -> None:
    file = written(tmp_path, settings)
    code, out, err = cli("check", file)
    assert (code, out) == (2, "")
    assert err.startswith("sidecar: ")
    assert says in err
    assert cli("check", tmp_path / "none.yaml")[0] == 2


@pytest.mark.parametrize(
    "wrong", ["row 101, key open to all", "row 101, expired", "row 101, not valid yet", "row 101, expired CA"]
)
@pytest.mark.parametrize("section", ["otlp", "control"])
def test_row_101_tls_that_does_not_hold_is_refused(tmp_path: Path, cli: Cli, wrong: str, section: str) -> None:
    import datetime

    now = datetime.datetime.now(datetime.UTC)
    shift = {"row 101, expired": -40, "row 101, not valid yet": 40}.get(wrong, 0)
    certificate, key = Authority(tmp_path, now=now + datetime.timedelta(days=shift)).issue("localhost")
    tls = {"certificate": str(certificate), "key": str(key)}
    file = written(tmp_path, {section: {"tls": tls}})
    if wrong == "row 101, key open to all":
        assert cli("check", file)[0] == 0, "the control"
        key.chmod(0o644)
    if wrong == "row 101, expired CA":
        tls["client_ca"] = str(Authority(tmp_path, "old", now=now - datetime.timedelta(days=40)).path)
        file = written(tmp_path, {section: {"tls": tls}})
    code, out, err = cli("check", file)
    assert (code, out) == (2, "")
    assert f"{section}.tls." in err
    assert "PRIVATE" not in err


def test_config_show_tells_every_setting_what_it_means_and_where_it_is_from(tmp_path: Path, cli: Cli) -> None:
    file = written(tmp_path, {"gate": {"hold": "20m"}, "otlp": {"grpc": None}})
    code, out, err = cli("config", "show", "-c", file)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "  hold: 1200.0  # from the file" in lines
    assert "  grpc: null  # from the file" in lines
    assert '  http: "127.0.0.1:4318"' in lines
    assert sum(line.endswith("# from the file") for line in lines) == 2
    for name in Config.model_fields:
        assert any(line.startswith(f"{name}:") for line in lines), name
    code, out, _ = cli("config", "show", "-c", file, "--json")
    shown = json.loads(out)
    assert shown["given"] == {"gate": {"hold": "20m"}, "otlp": {"grpc": None}}
    assert Config.model_validate(shown["config"]).gate.hold == 1200


def test_config_show_without_a_file_is_the_defaults(cli: Cli) -> None:
    code, out, _ = cli("config", "show", "--json")
    assert code == 0
    assert Config.model_validate(json.loads(out)["config"]) == Config()
    assert "from the file" not in cli("config", "show")[1]
    assert yaml.safe_load(cli("config", "show")[1])["gate"]["hold"] == Config().gate.hold


# ---------------------------------------------------------------- looking in


def test_detectors_are_listed_with_the_mode_in_force(tmp_path: Path, cli: Cli) -> None:
    file = written(tmp_path, {"policy": {"modes": {"leverage": "alert"}}})
    code, out, _ = cli("detectors", "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)] == [detector.name for detector in SHIPPED]
    modes = {row["name"]: row["mode"] for row in json.loads(cli("detectors", "-c", file, "--json")[1])}
    assert modes["leverage"] == "alert"
    assert all(detector.name in cli("detectors")[1] for detector in SHIPPED)


@pytest.mark.parametrize("name", [detector.name for detector in SHIPPED])
def test_a_detector_is_told_with_options_and_examples(name: str, cli: Cli) -> None:
    code, out, _ = cli("detectors", name, "--json")
    document = json.loads(out)
    assert (code, document["name"]) == (0, name)
    assert document["about"]
    assert {example["flagged"] for example in document["examples"]} == {True, False}
    words = cli("detectors", name)[1]
    assert name in words
    assert "examples:" in words


def test_a_detector_that_is_not_there_is_a_no(cli: Cli) -> None:
    code, out, err = cli("detectors", "leverge")
    assert (code, out) == (1, "")
    assert "leverage" in err


def test_a_tool_is_told_as_the_gate_sees_it(tmp_path: Path, cli: Cli) -> None:
    code, out, _ = cli("tools", "send_email", '{"to": "a@b.example"}', "--json")
    seen = json.loads(out)
    assert (code, seen["sends"], seen["reversible"], seen["known"]) == (0, True, False, True)
    assert "irreversible" in cli("tools", "send_email")[1]
    assert "unknown: judged by its content" in cli("tools", "frobnicate_qz")[1]
    file = written(tmp_path, {"tools": {"overrides": {"frobnicate_qz": {"reads": True, "reversible": True}}}})
    assert "reversible, known" in cli("tools", "frobnicate_qz", "-c", file)[1]


# ---------------------------------------------------------------- a pipe, a full disk, an old terminal (row 88)

TELLING = [["config", "show"], ["detectors", "--json"]]


@pytest.mark.parametrize("argv", TELLING, ids=" ".join)
def test_row_88_a_reader_that_goes_away_ends_it_quietly(argv: list[str]) -> None:
    process = subprocess.Popen([SIDECAR, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) == 0


@pytest.mark.parametrize("argv", TELLING, ids=" ".join)
def test_row_88_a_full_disk_is_said_and_ends_with_2(argv: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([SIDECAR, *argv], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "sidecar: output cannot be written: No space left on device\n")


@pytest.mark.parametrize("argv", [["config", "show"], ["config", "show", "--json"]], ids=" ".join)
def test_row_88_a_terminal_without_utf_8_gets_it_escaped(tmp_path: Path, argv: list[str]) -> None:
    file = written(tmp_path, "owners: [{role: x, owner: Ünal 😀}]")
    env = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run([SIDECAR, *argv, "-c", str(file)], capture_output=True, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert b"nal" in done.stdout
    bad = subprocess.run([SIDECAR, "detectors", "ünal"], capture_output=True, env=env)
    assert bad.returncode == 1
    assert bad.stderr.isascii()
    assert b"Traceback" not in bad.stderr


def test_what_steers_a_terminal_is_shown_not_done(tmp_path: Path, cli: Cli) -> None:
    file = written(tmp_path, {"owners": [{"role": "x", "owner": "\x1b[2J\x1b]0;mine\x07\u202eevil"}]})
    out = cli("config", "show", "-c", file)[1]
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_it_is_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "sidecar", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"sidecar {__version__}\n")


# ---------------------------------------------------------------- an operator at work, with a real sidecar


class Running:
    """`sidecar run` with nothing but its two sockets."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.config = written(
            folder,
            {
                "storage": {"data_dir": str(self.data), "low_water_bytes": "1MiB", "ballast_bytes": "1MiB"},
                "gate": {"fail_open": True, "i_accept_fail_open_for": ["refund", "book"]},
                "otlp": {"grpc": None, "http": None}, "observe": {"http": None}, "control": {"agents": None},
                "policy": {
                    "verdicts": [{"severity": "critical", "posture": "enforce", "action": "hold"},
                                 {"severity": "critical", "action": "pause"}],
                    "roles": [{"role": "careful", "posture": "enforce"}],
                },
            },
        )  # fmt: skip
        self.operators = f"unix:{self.data}/operators.sock"
        self.log = (folder / "log").open("ab")
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([SIDECAR, "run", "-c", self.config], stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert process.poll() is None, Path(self.log.name).read_text()
            try:
                with Operators(self.operators, timeout_s=1) as operators:
                    operators.status()
                return process
            except ControlError:
                time.sleep(0.05)
        raise TimeoutError("it did not start")

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    sidecar = Running(tmp_path_factory.mktemp("run"))
    yield sidecar
    if sidecar.process.poll() is None:
        sidecar.end(signal.SIGKILL)
    sidecar.log.close()


@pytest.fixture
def operate(running: Running, cli: Cli) -> Cli:
    """Runs an operator's command against it."""
    return lambda *argv: cli(*argv, "--at", running.operators)


def threatens(running: Running, session: str, agent: str = "desk") -> Any:
    """An agent that has read something private asks to send a threat."""
    with Raw(f"unix:{running.data}/agents.sock") as agents:
        opened(agents, session, agent)
        carried = recorded(session, AFFAIR, agent=agent).SerializeToString()
        return asked(agents, session, THREAT.tool, THREAT.arguments, carried=[carried], call_id=uuid.uuid4().hex)


def document(told: tuple[int, str, str]) -> Any:
    assert told[0] == 0, told
    return json.loads(told[1])


def test_a_paused_session_is_seen_looked_into_resumed_and_ended(running: Running, operate: Cli) -> None:
    threatens(running, "one")
    (held,) = document(operate("sessions", "--held", "--json"))
    assert (held["session_id"], held["state"]) == ("one", "RUN_STATE_PAUSED")
    code, words, _ = operate("sessions", "one")
    assert code == 0
    assert "held by detector leverage" in words
    assert "one" in operate("sessions")[1]

    fired = document(operate("alerts", "--json"))
    (alert,) = [one for one in fired if one["detector"] == "leverage"]
    shown = document(operate("alerts", alert["fingerprint"][:10], "--json"))
    assert shown["evidence"]
    assert alert["fingerprint"] in operate("alerts", alert["fingerprint"][:10])[1]

    assert operate("pause", "one", "-r", "looking") == (0, "one: paused, agent UNENFORCED\n", "")
    code, words, err = operate("resume", "one", "-r", "seen", "--clear", "nothing@else")
    assert (code, words) == (2, "")
    assert "not cleared by this resume" in err
    assert operate("resume", "one", "-r", "seen") == (0, "one: running, agent running\n", "")
    assert operate("resume", "one", "-r", "again")[0] == 0
    assert document(operate("sessions", "--held", "--json")) == []
    assert operate("terminate", "one", "-r", "enough") == (0, "one: terminated, agent running\n", "")
    code, _, err = operate("pause", "one", "-r", "late")
    assert code == 2
    assert "terminated" in err


def test_a_held_act_is_listed_and_decided(running: Running, operate: Cli) -> None:
    threatens(running, "two", "careful")
    (open_,) = document(operate("approvals", "--json"))
    assert (open_["session_id"], open_["tool"]) == ("two", "send_email")
    assert operate("approvals", open_["decision_id"][:8])[0] == 1, "it does not guess what is meant"
    code, words, _ = operate("approvals", open_["decision_id"][:8], "--deny", "-r", "no")
    assert (code, words) == (0, "send_email of two: denied\n")
    assert document(operate("approvals", "--json")) == []
    assert len(document(operate("approvals", "--all", "--json"))) == 1
    assert operate("approvals", "ffffff", "--approve", "-r", "no")[0] == 2


def test_an_alert_is_reviewed_once(running: Running, operate: Cli) -> None:
    threatens(running, "three")
    alerts = document(operate("alerts", "--json"))
    (alert,) = [one for one in alerts if (one["session_id"], one["detector"]) == ("three", "leverage")]
    assert operate("review", alert["fingerprint"], "perhaps", "-r", "x")[0] == 2
    code, words, _ = operate("review", alert["fingerprint"][:12], "true_positive", "-r", "it is")
    assert (code, "true_positive" in words) == (0, True)
    names = [one["fingerprint"] for one in document(operate("alerts", "--json"))]
    assert alert["fingerprint"] not in names
    assert alert["fingerprint"] in [one["fingerprint"] for one in document(operate("alerts", "--all", "--json"))]


def test_a_role_and_the_fleet_are_held_and_let_go(running: Running, operate: Cli) -> None:
    with Raw(f"unix:{running.data}/agents.sock") as agents:
        opened(agents, "four", "scribe")
    assert operate("pause", "--role", "scribe", "-r", "look")[:2] == (0, "four: paused, agent UNENFORCED\n")
    assert operate("resume", "--role", "scribe", "-r", "fine")[:2] == (0, "four: running, agent running\n")
    assert operate("pause", "--role", "nobody yet", "-r", "look")[:2] == (
        0, "no session is open; later ones will be held\n",
    )  # fmt: skip
    assert operate("pause", "--fleet", "-r", "drill")[0] == 0
    assert {one["state"] for one in document(operate("sessions", "four", "--json"))} == {"RUN_STATE_PAUSED"}


def test_what_is_not_there_is_a_no_and_who_does_not_answer_is_unclear(
    running: Running, operate: Cli, cli: Cli, tmp_path: Path
) -> None:
    code, out, err = operate("sessions", "never was")
    assert (code, out) == (1, "")
    assert "never was" in err
    assert operate("pause", "never-was", "-r", "x")[0] == 2
    assert operate("alerts", "ffff")[0] == 2
    for argv in (["sessions"], ["alerts"], ["approvals"], ["pause", "x", "-r", "y"]):
        code, out, err = cli(*argv, "--at", f"unix:{tmp_path}/none.sock")
        assert (code, out) == (2, "")
        assert err.startswith("sidecar: ")


def test_row_97_what_may_run_unasked_is_on_record_from_the_start(running: Running) -> None:
    with Operators(running.operators) as operators:
        first = operators.audit()[0]
    assert first.action == "start"
    assert json.loads(first.detail_json)["fail_open"] == "refund, book"


def not_ours(data: Path) -> None:
    data.mkdir(mode=0o700)
    (data / "control.db").write_bytes(b"SQLite format 3\0" + bytes(8176))
    (data / "control.db").chmod(0o600)


def log_without_database(data: Path) -> None:
    data.mkdir(mode=0o700)
    (data / "telemetry.db-wal").write_bytes(b"x" * 4096)
    (data / "telemetry.db-wal").chmod(0o600)


def open_to_others(data: Path) -> None:
    data.mkdir()
    data.chmod(0o755)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (not_ours, "control.db"), (log_without_database, "telemetry.db-wal is there"),
        (open_to_others, "open to other"),
        (lambda data: data.write_text("a file"), "data"), (lambda data: data.symlink_to(data), "data"),
    ],
    ids=["row 85, not our database", "row 85, a log without its database", "row 85, open to others", "row 85, a file",
         "row 85, a link to itself"],
)  # fmt: skip
def test_row_85_state_that_is_not_ours_stops_the_start_and_is_left_alone(
    tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    """What else a database can be is in storage/test_opening.py."""
    data = tmp_path / "data"
    spoil(data)
    before = {path.name: path.read_bytes() for path in data.glob("*")} if data.is_dir() else None
    file = written(tmp_path, {"storage": {"data_dir": str(data)}, "otlp": {"grpc": None, "http": None}})
    done = subprocess.run([SIDECAR, "run", "-c", file], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    if before is not None:
        assert {name: (data / name).read_bytes() for name in before} == before


def test_row_86_a_second_one_on_the_same_data_is_refused_and_told_who_has_it(running: Running) -> None:
    second = subprocess.run([SIDECAR, "run", "-c", running.config], capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert str(running.process.pid) in second.stderr
    assert "Traceback" not in second.stderr
    assert running.process.poll() is None


def test_it_ends_on_a_signal_and_knows_all_of_it_at_its_next_start(running: Running, operate: Cli) -> None:
    before = document(operate("sessions", "--json"))
    assert running.end() == 0
    running.process = running.start()
    after = document(operate("sessions", "--json"))
    states = {one["session_id"]: (one["state"], one.get("epoch")) for one in after}
    assert states == {one["session_id"]: (one["state"], one.get("epoch")) for one in before}
    assert running.end(signal.SIGINT) == 0


def test_a_configuration_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    file = written(tmp_path, {"storage": {"data_dir": "/proc/none"}})
    done = subprocess.run([SIDECAR, "run", "-c", file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("sidecar: ")
    assert "Traceback" not in done.stderr
