"""`sidecar doctor`: what it says of recordings and of a running sidecar's inbox, and how it ends."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.cli.commands import run
from sidecar.control.v1 import control_pb2 as pb
from sidecar.core.coverage import INPUTS
from sidecar.core.span import Speaker
from sidecar.sources import Row
from sidecar.storage.settings import StorageSettings
from sidecar.storage.telemetry import TelemetryStore, rows_since
from tests.shells.otlp.kit import span, traces
from tests.shells.recordings import DULL, SECOND_NS, START_NS, hexed, recorded, write_delimited, write_lines

Cli = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
HIDES = ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "gen_ai.input.messages")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in this process: (exit code, standard output, standard error)."""

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(one) for one in argv])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def without(request: Any, *names: str) -> Any:
    """The same request, with attributes of that name left out of all of its spans."""
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for one in scope.spans:
                kept = [pair for pair in one.attributes if pair.key not in names]
                del one.attributes[:]
                one.attributes.extend(kept)
    return request


def scoped(request: Any, name: str) -> Any:
    request.resource_spans[0].scope_spans[0].scope.name = name
    return request


def answered(session: str, agent: str = "desk") -> Any:
    """A model's answer, so that nothing is missing beside `recorded`."""
    say = json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "All done."}]}])
    ask = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Go over the mail."}]}])
    attributes = [
        ("gen_ai.operation.name", "chat"), ("gen_ai.conversation.id", session), ("gen_ai.agent.name", agent),
        ("gen_ai.request.model", "m-1"), ("gen_ai.input.messages", ask), ("gen_ai.output.messages", say),
    ]  # fmt: skip
    one = span(
        attributes=attributes,
        trace_id=bytes.fromhex(hexed(session, 32)),
        parent_span_id=bytes.fromhex(hexed(f"{session}/run", 16)),
        span_id=bytes.fromhex(hexed(f"{session}/chat", 16)),
        name="chat m-1",
        start_time_unix_nano=START_NS + 2 * SECOND_NS,
        end_time_unix_nano=START_NS + 3 * SECOND_NS,
    )
    return traces(one, resource=[("service.name", agent)])


WHOLE = (recorded("monday", *DULL), answered("monday"))


def mail_helper() -> Any:
    """An agent whose library keeps content to itself and names the session on the run only."""
    request = without(recorded("tuesday", *DULL, agent="mail-helper"), *HIDES)
    for one in request.resource_spans[0].scope_spans[0].spans[1:]:
        kept = [pair for pair in one.attributes if pair.key != "gen_ai.conversation.id"]
        del one.attributes[:]
        one.attributes.extend(kept)
    return scoped(request, "opentelemetry.instrumentation.genai.openai_agents")


# ---------------------------------------------------------------- recordings


@pytest.mark.parametrize("write", [write_lines, write_delimited])
@pytest.mark.parametrize("name", ["whole.otlp", "whole.otlp.gz"])
def test_an_agent_of_which_all_is_seen_ends_with_0(tmp_path: Path, cli: Cli, write: Any, name: str) -> None:
    code, out, err = cli("doctor", write(tmp_path / name, WHOLE))
    assert (code, err) == (0, "")
    assert "desk (local): 1 session, 4 spans, 0 log records" in out
    assert "WITHHELD" not in out
    assert "BLIND" not in out


def test_what_is_withheld_ends_with_1_and_names_the_switch(tmp_path: Path, cli: Cli) -> None:
    code, out, err = cli("doctor", write_lines(tmp_path / "mail.jsonl", [mail_helper()]))
    assert (code, err) == (1, "")
    assert "their arguments WITHHELD acts 0 0 2 0" in " ".join(out.split())
    assert "BLIND     exfiltration, sensitive_flow" in out
    assert "`OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY`" in out
    assert "the session of acts is told: 2 by a later span" in out


def test_standard_input_is_read(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Piped:
        buffer = io.BytesIO(write_lines(tmp_path / "whole", WHOLE).read_bytes())

    monkeypatch.setattr(sys, "stdin", Piped)
    code, out, _ = cli("doctor", "-")
    assert code == 0
    assert "desk (local): 1 session" in out


def test_json_is_one_document_with_all_that_follows(tmp_path: Path, cli: Cli) -> None:
    file = write_lines(tmp_path / "mail.jsonl", [mail_helper()])
    code, out, _ = cli("doctor", file, "--json")
    assert code == 1
    document = json.loads(out)
    assert (document["source"], document["records"], document["bad_records"]) == (str(file), 3, 0)
    [agent] = document["agents"]
    assert list(agent["inputs"]) == list(INPUTS)
    assert agent["inputs"]["arguments"] == {
        "told": 0, "inferred": 0, "withheld": 2, "absent": 0, "seen_at": "", "status": "withheld",
        "missing_at": agent["inputs"]["arguments"]["missing_at"],
    }  # fmt: skip
    assert agent["inputs"]["arguments"]["missing_at"].startswith(hexed("tuesday", 32))
    assert {"arguments", "results", "user_texts"} <= set(agent["missing"])
    blind = {spot["detector"] for spot in agent["detectors"] if spot["sight"] == "blind"}
    assert blind >= {"leverage", "sensitive_flow"}
    assert any("CAPTURE_MESSAGE_CONTENT" in advice["switch"] for advice in agent["switches"])


def test_agents_are_told_apart_and_one_can_be_chosen(tmp_path: Path, cli: Cli) -> None:
    file = write_lines(tmp_path / "both.jsonl", [*WHOLE, mail_helper()])
    code, out, _ = cli("doctor", file)
    assert code == 1
    assert "desk (local)" in out
    assert "mail-helper (local)" in out
    code, out, _ = cli("doctor", file, "--agent", "desk")
    assert code == 0
    assert "mail-helper" not in out
    code, out, err = cli("doctor", file, "--agent", "nobody")
    assert (code, out) == (2, "")
    assert "nothing of an agent called 'nobody'; there is desk, mail-helper" in err


def test_without_telemetry_of_an_agent_it_cannot_tell(tmp_path: Path, cli: Cli) -> None:
    plain = traces(span(attributes=[("http.request.method", "GET")], name="GET /"))
    code, out, err = cli("doctor", write_lines(tmp_path / "web.jsonl", [plain]))
    assert (code, out) == (2, "")
    assert "1 records, and none says anything of an agent" in err
    idle = answered("friday")
    code, out, err = cli("doctor", write_lines(tmp_path / "idle.jsonl", [idle]))
    assert code == 2
    assert "no act was seen" in err
    assert cli("doctor", tmp_path / "none.jsonl")[0] == 2


def test_a_bad_record_is_named_and_leaves_the_answer_open(tmp_path: Path, cli: Cli) -> None:
    file = write_lines(tmp_path / "torn.jsonl", WHOLE)
    file.write_bytes(file.read_bytes() + b'{"resourceSpans": [\n')
    code, out, err = cli("doctor", file)
    assert code == 2
    assert "desk (local)" in out
    assert f"{file}: line 3" in err


def test_what_agents_call_themselves_does_not_steer_the_terminal(tmp_path: Path, cli: Cli) -> None:
    request = scoped(recorded("monday", *DULL, agent="de\x1b[2Jsk\u202e"), "evil\x1b]0;mine\x07")
    code, out, _ = cli("doctor", write_lines(tmp_path / "hostile.jsonl", [request]))
    assert code in (0, 1)
    assert "\\x1b[2J" in out
    assert not any(c in out for c in "\x1b\x07\u202e")


def test_dropped_attributes_are_told_and_what_mends_them(tmp_path: Path, cli: Cli) -> None:
    request = recorded("monday", *DULL)
    request.resource_spans[0].scope_spans[0].spans[1].dropped_attributes_count = 58
    code, out, _ = cli("doctor", write_lines(tmp_path / "overflow.jsonl", [request, answered("monday")]))
    assert code == 1
    assert "1 record: the SDK dropped attributes" in out
    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" in out


# ---------------------------------------------------------------- live


async def received(folder: Path, *rows: Row) -> Path:
    """A sidecar's data directory in which these requests have arrived; its configuration."""
    settings = StorageSettings(data_dir=folder / "data")
    store = TelemetryStore.open(settings, create=True)
    for row in rows:
        await store.append(row)
    await store.close()
    config = folder / "sidecar.yaml"
    config.write_text(yaml.safe_dump({"storage": {"data_dir": str(folder / "data")}}))
    return config


def row(request: Any, minutes_ago: float = 0.0, realm: str = "local", kind: Any = "traces") -> Row:
    arrived_ns = time.time_ns() - int(minutes_ago * 60e9)
    return Row(kind, request.SerializeToString(), arrived_ns, "proto", Speaker(realm=realm))


async def test_without_files_the_inbox_of_the_running_sidecar_is_read(tmp_path: Path, cli: Cli) -> None:
    config = await received(tmp_path, *map(row, WHOLE), row(mail_helper(), realm="agent:mail-helper"))
    before = (tmp_path / "data" / "telemetry.db").read_bytes()
    code, out, err = cli("doctor", "-c", config)
    assert (code, err) == (1, "")
    assert "desk (local): 1 session, 4 spans" in out
    assert "mail-helper (agent:mail-helper): 1 session, 3 spans" in out
    assert cli("doctor", "-c", config, "--agent", "desk")[0] == 0
    assert (tmp_path / "data" / "telemetry.db").read_bytes() == before


async def test_only_the_latest_minutes_are_read(tmp_path: Path, cli: Cli) -> None:
    config = await received(tmp_path, row(mail_helper(), minutes_ago=60), *map(row, WHOLE))
    code, out, _ = cli("doctor", "-c", config, "--minutes", "5")
    assert code == 0
    assert "mail-helper" not in out
    assert cli("doctor", "-c", config, "--minutes", "90")[0] == 1
    late = time.time_ns() + 60 * 10**9
    assert list(rows_since(tmp_path / "data", late)) == []


async def test_an_inbox_that_is_empty_or_not_there_cannot_tell(tmp_path: Path, cli: Cli) -> None:
    config = await received(tmp_path)
    code, out, err = cli("doctor", "-c", config)
    assert (code, out) == (2, "")
    assert "the last 15 minutes: no telemetry" in err
    config.write_text(yaml.safe_dump({"storage": {"data_dir": str(tmp_path / "nowhere")}}))
    code, _, err = cli("doctor", "-c", config)
    assert code == 2
    assert "there is no such database" in err


async def test_a_sidecar_that_is_writing_is_read_too(tmp_path: Path, cli: Cli) -> None:
    config = await received(tmp_path)
    store = TelemetryStore.open(StorageSettings(data_dir=tmp_path / "data"))
    try:
        for request in WHOLE:
            await store.append(row(request))
        assert cli("doctor", "-c", config)[0] == 0
        await store.append(row(mail_helper()))
        assert cli("doctor", "-c", config)[0] == 1
    finally:
        await store.close()


async def test_what_was_carried_to_the_gate_counts_and_counts_once(tmp_path: Path, cli: Cli) -> None:
    asked = pb.AuthorizeRequest(session_id="monday", tool="send_email", arguments_json="{}", call_id="c")
    asked.carried.extend(request.SerializeToString() for request in WHOLE)
    config = await received(tmp_path, row(asked, kind="asked"), row(WHOLE[0]))
    code, out, _ = cli("doctor", "-c", config)
    assert code == 0
    assert "desk (local): 1 session, 4 spans" in out


# ---------------------------------------------------------------- the page


def test_the_example_in_the_pages_is_what_is_printed(tmp_path: Path, cli: Cli) -> None:
    _, out, _ = cli("doctor", write_lines(tmp_path / "mail.jsonl", [mail_helper()]))
    lines = [line.rstrip() for line in out.splitlines()]
    page = (ROOT / "docs/integrating.md").read_text("utf-8")
    shown = page.split("$ sidecar doctor --agent mail-helper\n", 1)[1].split("```", 1)[0].rstrip().splitlines()
    assert shown == lines
