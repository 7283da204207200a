"""The fallback leaves ordinary telemetry alone, and reads what is evidently an act although much of it is missing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.core import semconv
from sidecar.core.semconv import fallback, logtext
from sidecar.core.semconv.words import MAX_KEY, MAX_KNOWN, _known, meaning, words_of
from sidecar.core.span import Span
from tests.core.kit import span


def named(name: str, attributes: dict[str, Any], **fields: Any) -> Span:
    return span(attributes, 0, 1, name=name, **fields)


def record(body: Any, attributes: dict[str, Any] | None = None, name: str = "") -> Span:
    return replace(span(attributes or {}, 0, 1, name="x"), signal="log", name=name, body=body, start_ns=0)


ORDINARY_SPANS: list[tuple[str, dict[str, Any]]] = [
    ("GET /users/{id}", {"http.request.method": "GET", "http.route": "/users/{id}", "url.path": "/users/4",
                         "http.response.status_code": 200, "server.address": "api", "user_agent.original": "curl/8"}),
    ("GET", {"http.method": "GET", "http.url": "https://api.example/x?prompt=consent", "http.status_code": 500}),
    ("POST /chat", {"http.request.method": "POST", "http.route": "/chat", "http.response.status_code": 200}),
    ("POST /v1/chat/completions", {"http.request.method": "POST", "url.full": "https://api/v1/chat/completions"}),
    ("POST /tools/call", {"http.request.method": "POST", "http.route": "/tools/call"}),
    ("POST /agents", {"http.request.method": "POST", "http.request.body.size": 20}),
    ("SELECT users", {"db.system.name": "postgresql", "db.query.text": "SELECT * FROM tools WHERE name = $1",
                      "db.operation.name": "SELECT", "db.query.parameter.name": "hammer"}),
    ("redis GET", {"db.system": "redis", "db.statement": "GET prompt:4", "net.peer.name": "cache"}),
    ("orders publish", {"messaging.system": "kafka", "messaging.operation.name": "publish",
                        "messaging.destination.name": "orders", "messaging.message.id": "m1",
                        "messaging.message.body.size": 99}),
    ("agent.events process", {"messaging.system": "rabbitmq", "messaging.operation.type": "process"}),
    ("grpc.Tools/CallTool", {"rpc.system": "grpc", "rpc.service": "Tools", "rpc.method": "CallTool",
                             "rpc.grpc.status_code": 0}),
    ("my.Service/Run", {"rpc.method": "Run", "rpc.request.metadata.tool": "x"}),
    ("jsonrpc", {"rpc.jsonrpc.version": "2.0", "rpc.method": "tools", "rpc.jsonrpc.request_id": "1"}),
    ("my-function", {"faas.name": "my-function", "faas.trigger": "http", "faas.invocation_id": "i"}),
    ("lambda", {"faas.invoked_name": "f", "faas.invoked_provider": "aws", "cloud.resource_id": "arn:x"}),
    ("flag", {"feature_flag.key": "new-tool", "feature_flag.result.variant": "on", "feature_flag.result.value": "x",
              "feature_flag.provider.name": "p"}),
    ("pod", {"k8s.pod.name": "agent-0", "k8s.namespace.name": "tools", "container.image.name": "llm"}),
    ("documentLoad", {"browser.platform": "mac", "session.previous_id": "s0", "user.id": "u"}),
    ("click", {"event_type": "click", "target_element": "BUTTON", "target_xpath": "//b"}),
    ("GraphQL query", {"graphql.operation.name": "q", "graphql.document": "{ tool { name args } }"}),
    ("HomeController#index", {"controller": "home", "action": "index", "params": json.dumps({"id": 4})}),
    ("run migrations", {"count": 4, "status": "ok", "input": "db", "output": "done"}),
    ("run_agent_upgrade", {"version": "1.2", "status": "ok"}),
    ("call backend", {"component": "proxy", "upstream_cluster": "x", "response_flags": "-"}),
    ("run/tasks.add", {"celery.task_name": "tasks.add", "celery.action": "run", "celery.args": "[1, 2]",
                       "celery.task.kwargs": '{"x": 1}'}),
    ("compute", {"code.function.name": "compute", "code.file.path": "a.py", "code.line.number": 3}),
    ("compute", {"function_name": "compute", "duration_ms": 3, "result": "ok"}),
    ("lint", {"tool.name": "eslint", "tool.version": "9", "files": 12}),
    ("scan", {"tool": "trivy", "severity": "HIGH", "result": "pass"}),
    ("build", {"cicd.pipeline.name": "build", "cicd.pipeline.task.name": "tool", "vcs.ref.head.name": "main"}),
    ("aws.s3", {"aws.request_id": "r", "rpc.service": "S3", "aws.s3.bucket": "b"}),
    ("beat", {"agent.name": "host-1", "agent.type": "filebeat", "agent.id": "u", "event.action": "read"}),
    ("jenkins agent run", {"agent.label": "linux", "job": "x", "status": "ok"}),
    ("search", {"query": "shoes", "results": 40, "page": 2}),
    ("transform", {"input": json.dumps({"a": 1}), "output": json.dumps({"b": 2}), "type": "map"}),
    ("etl.step", {"step.name": "load", "step.type": "task", "step.input": "a.csv", "step.output": "b.csv"}),
    ("resolve", {"type": "user", "name": "bob", "role": "admin"}),
    ("sell", {"type": "tool", "category": "garden", "price": 9.5, "name": "hammer"}),
    ("exam", {"question_id": 4, "answer_count": 3, "score": 0.5}),
    ("user", {"input": json.dumps({"id": 4}), "output": json.dumps({"name": "bob"})}),
    ("progress", {"completion": 0.93, "model": "Model S", "messages": 12}),
    ("queue", {"messages": 40, "history": 3, "tokens": 4, "prompt": True}),
    ("predict", {"model.name": "xgboost", "model.version": "3", "features": "[1,2,3]"}),
    ("chat", {"room": "a", "members": 3}),
    ("llm gateway health", {"status": "ok"}),
    ("session", {"session.id": "s", "user.id": "u"}),
    ("process", {"process.command": "tool", "process.command_args": ["tool", "--x"], "process.pid": 4}),
    ("thread", {"thread.id": 4, "thread.name": "agent-1"}),
    ("exception", {"exception.type": "ToolError", "exception.message": "tool failed"}),
    ("toolbar.render", {"toolbar": "main", "items": 3}),
    ("tooltip: help", {"target": "a"}),
]  # fmt: skip

ORDINARY_LOGS: list[tuple[Any, dict[str, Any]]] = [
    ("user bob logged in", {"user": "bob", "event": "login", "action": "create", "message": "hello"}),
    ({"message": "saved", "user": "bob", "action": "update", "event": "order.saved", "level": "info"}, {}),
    ({"event": "login", "user": "amy", "ip": "192.0.2.1", "status": "success"}, {}),
    ({"action": "delete", "args": {"id": 4}, "user": "amy", "resource": "order"}, {}),
    ({"action": "create", "input": {"name": "x"}, "output": {"id": 1}}, {}),
    ({"method": "GET", "path": "/", "controller": "Home", "action": "index", "params": {"id": 4}, "status": 200}, {}),
    ({"function_name": "f", "function_arn": "arn", "function_request_id": "r", "cold_start": True, "message": "x"}, {}),
    ({"metric": "tool_calls_total", "value": 3, "labels": {"tool": "x"}}, {}),
    ({"name": "llm_tokens", "type": "counter", "value": 17, "unit": "1"}, {}),
    ({"kind": "Event", "type": "Normal", "reason": "Pulled", "message": "image", "object": {"kind": "Pod"}}, {}),
    ({"type": "message", "text": "hi", "user": "U1", "channel": "C1"}, {}),
    ({"role": "admin", "content": "x"}, {}),
    ({"role": "user", "message": "logged in", "status": 200}, {}),
    ({"action": "opened", "sender": {"type": "User", "login": "bob"}, "comment": {"text": "hi", "body": "x"}}, {}),
    ({"from": "bob", "to": "amy", "text": "hi"}, {}),
    ({"author": "bob", "content": "<p>text</p>", "type": "article"}, {}),
    ({"request": {"path": "/x", "body": {"a": 1}}, "response": {"status": 200, "body": {"b": 1}}}, {}),
    ({"query": "SELECT 1", "result": [{"a": 1}], "rows": 1}, {}),
    ({"prompt": "Name?", "level": "info"}, {}),
    ({"tool": "webpack", "version": "5", "result": "ok"}, {}),
    ({"command": "terraform", "args": ["plan"], "output": "ok"}, {}),
    ({"task": "tasks.add", "args": [1, 2], "kwargs": {"x": 1}, "result": 3}, {}),
    ({"role": "user", "permissions": ["read"]}, {}),
    ({"type": "tool", "name": "hammer", "price": 3}, {}),
    ({"type": "function", "name": "f"}, {}),
    ({"title": "q", "body": "text", "content": "<p>user prompt</p>"}, {}),
    ({"jsonrpc": "2.0", "method": "eth_call", "params": [{"to": "0x0"}], "id": 1}, {}),
    ({"operationName": "q", "variables": {"id": 1}, "query": "{tool}"}, {}),
    ({"event": "cart_updated", "properties": {"tool": None}}, {}),
    ({"level": "error", "error": "connection refused", "logger": "agent.loop"}, {}),
    ([1, 2, 3], {}), ([], {}), ({}, {}), (None, {}), (4, {}), (True, {}), (b"\x00\x01", {}), ("", {}), ("{", {}),
    ("The tool shed is open; the agent will call you", {}),
    ("Using tool chain gcc 14 for the build", {}),
    ("tool versions: a=1 b=2", {}),
    ("Tool call rate is high", {}),
    ("Running tool tests", {}),
    ("level=info msg=\"request done\" status=200 duration=3ms user=bob role=admin", {}),
    ("level=info action=create user=bob event=login prompt=none", {}),
    ("GET /agent/run?tool=x HTTP/1.1 200 role=user", {}),
    ("[1] agent started: role=leader term=4", {}),
    ("question of the day: why?", {"logger": "quiz"}),
    ("x", {"code.function.name": "call_tool", "code.file.path": "a.py", "thread.name": "agent"}),
    ("x", {"log.file.name": "tool.log", "log.iostream": "stdout", "user_prompt_count": 4}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "attributes"), ORDINARY_SPANS, ids=[name for name, _ in ORDINARY_SPANS])
def test_an_ordinary_span_is_no_act(name: str, attributes: dict[str, Any]) -> None:
    assert fallback.read(named(name, attributes)) is None
    facts = semconv.read(named(name, attributes))
    assert facts is None or facts.kind == "context"


@pytest.mark.parametrize(("body", "attributes"), ORDINARY_LOGS, ids=[str(body)[:40] for body, _ in ORDINARY_LOGS])
def test_an_ordinary_log_record_is_no_act(body: Any, attributes: dict[str, Any]) -> None:
    assert fallback.read(record(body, attributes)) is None
    if isinstance(body, dict):
        assert fallback.read(record(json.dumps(body), attributes)) is None


def test_most_ordinary_spans_are_rejected_without_a_look_at_their_values() -> None:
    claimed = [name for name, attributes in ORDINARY_SPANS if fallback.claims(named(name, attributes))]
    assert len(claimed) <= len(ORDINARY_SPANS) // 3, claimed


@pytest.mark.parametrize("name", [
    "execute_tool send_email", "tool: send_email", "tool.send_email", "tool:send_email", "call_tool send_email",
    "tool_call: send_email", "invoke_tool(send_email)", "Tool call: send_email", "tool/send_email",
    "agent.tool.send_email",
])  # fmt: skip
def test_an_act_that_only_its_name_tells_has_its_arguments_withheld(name: str) -> None:
    facts = semconv.read(named(name, {"duration_ms": 4}))
    assert facts is not None
    assert (facts.kind, facts.tool, facts.arguments) == ("tool", "send_email", None)
    assert facts.withheld == ("arguments", "result")
    assert facts.unscored == ("withheld",)


@pytest.mark.parametrize("marker", ["__REDACTED__", "<REDACTED>", "[REDACTED]"])
def test_a_marker_is_withheld_and_never_content(marker: str) -> None:
    facts = semconv.read(named("work", {"tool.name": "send", "tool.args": marker, "tool.result": marker}))
    assert facts is not None
    assert (facts.arguments, facts.result, facts.withheld) == (None, None, ("arguments", "result"))
    talk = semconv.read(named("llm.call", {"llm.prompt": marker, "llm.response": marker}))
    assert talk is not None
    assert (talk.inputs, talk.outputs, talk.withheld) == (None, None, ("inputs", "outputs"))


def test_no_arguments_at_all_are_not_withheld() -> None:
    facts = semconv.read(named("work", {"tool.name": "read_inbox", "tool.args": "{}", "tool.result": ""}))
    assert facts is not None
    assert (facts.arguments, facts.result, facts.withheld) == ({}, "", ())


def test_arguments_that_a_limit_cut_are_kept_and_said_to_be_cut() -> None:
    facts = semconv.read(named("work", {"tool.name": "send", "tool.args": '{"to": "a@b.example", "body": "long'}))
    assert facts is not None
    assert facts.arguments == '{"to": "a@b.example", "body": "long'
    assert facts.cut == ("arguments",)


@pytest.mark.parametrize("attributes", [
    {"error": "no such address"}, {"success": False, "tool.error": "no such address"},
    {"status": "error", "error": "no such address"},
])  # fmt: skip
def test_an_error_is_a_failure_and_its_words_the_result(attributes: dict[str, Any]) -> None:
    facts = semconv.read(named("tool: send", {"tool.args": '{"to": "x"}', **attributes}))
    assert facts is not None
    assert facts.failed
    assert facts.result == "no such address"


@pytest.mark.parametrize("attributes", [{"error": ""}, {"success": True}, {"status": "ok"}, {"error": "null"}])
def test_what_went_well_is_no_failure(attributes: dict[str, Any]) -> None:
    facts = semconv.read(named("tool: send", {"tool.args": '{"to": "x"}', **attributes}))
    assert facts is not None
    assert not facts.failed


def test_a_span_that_a_convention_reads_is_left_to_it() -> None:
    told = named("execute_tool a", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "a", "tool.name": "b",
                                    "gen_ai.tool.call.arguments": "{}"})  # fmt: skip
    facts = semconv.read(told)
    assert facts is not None
    assert facts.tool == "a"


def test_a_wrapper_that_a_convention_knows_stays_a_wrapper() -> None:
    chain = {"openinference.span.kind": "CHAIN", "input.value": '{"tool": "send"}', "tool.name": "send"}
    facts = semconv.read(named("agent.run", chain))
    assert facts is not None
    assert facts.kind == "context"


@pytest.mark.parametrize(("key", "field"), [
    ("app.tool.name", "name"), ("toolName", "name"), ("TOOL_NAME", "name"), ("my.tool.args", "arguments"),
    ("spring.ai.tool.call.arguments", "arguments"), ("agent.tool.input", "arguments"), ("action_input", "arguments"),
    ("tool.args.to", "argument"), ("tool.output", "result"), ("step.observation", "result"), ("llm.prompt", "inputs"),
    ("prompt_text", "inputs"), ("LLMResponse", "outputs"), ("completion", "outputs"), ("user_input", "user"),
    ("question", "user"), ("final_answer", "final"), ("mlflow.spanType", "kind"), ("agentops.span.kind", "kind"),
    ("genkit:metadata:subtype", "kind"), ("langfuse.observation.input", "in"), ("toolCallId", "call_id"),
    ("tool.input_length", ""), ("tool.args.length", ""), ("tool.output.size", ""), ("code.function.name", ""),
    ("http.request.method", ""), ("db.operation.parameter.x", ""), ("user.name", ""), ("prompt_id", ""), ("", ""),
    ("...", ""), ("x" * (MAX_KEY + 1), ""),
])  # fmt: skip
def test_what_a_key_means_by_its_words(key: str, field: str) -> None:
    assert meaning(key).field == field


def test_words_are_split_at_marks_and_humps() -> None:
    assert words_of("myApp.toolName_v2") == ["my", "app", "tool", "name", "v2"]
    assert words_of("OpenAIChatGenerator") == ["open", "ai", "chat", "generator"]
    assert words_of("LLMPrompt") == ["llm", "prompt"]


def test_so_many_keys_are_remembered_and_no_more() -> None:
    for number in range(2 * MAX_KNOWN):
        meaning(f"some.key{number}")
    assert len(_known) <= MAX_KNOWN


NAMES = [
    "tool", "tool.name", "tool.args", "tool.args.x", "tool.result", "tool_call", "tool_calls", "function", "arguments",
    "args", "action", "action_input", "observation", "thought", "role", "content", "messages", "prompt", "completion",
    "llm.prompt", "llm.response", "choices", "input", "output", "question", "answer", "user_input", "span.kind", "type",
    "event", "message", "data", "error", "status", "success", "call_id", "id", "model", "prompt_tokens", "session_id",
    "system_prompt", "agent.input", "text", "method", "params", "name",
]  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=8)
    | st.sampled_from(["tool", "tool_call", "tool_result", "llm", "agent", "user", "assistant", "[", '{"a', "{'a': 1}",
                       '{"name":"t","arguments":"{}"}', '[{"role":"user","content":[{"tool_call":{}}]}]', "error"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip
SNIPPETS = ["tool_call ", "tool=", "x ", "args=", "{", "}", '"', "'", "\\", "a=b ", "role=", "Action:",
            "Action Input:", "Calling tool "]  # fmt: skip
names = st.text(max_size=40) | st.sampled_from(["tool: ", "tool: x", "llm", "chat", "agent.run", "run x", "tool_call"])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), values, max_size=8), names, values, st.booleans())
def test_nothing_breaks_the_fallback(attributes: dict[str, Any], name: str, body: Any, is_log: bool) -> None:
    one = record(body, attributes, name) if is_log else named(name, attributes)
    assert isinstance(fallback.claims(one), bool)
    facts = fallback.read(one)
    semconv.read(one)
    if facts is not None and facts.kind == "tool":
        assert isinstance(facts.tool, str)
        assert facts.tool or facts.call_id
        assert ("arguments" in facts.withheld) == (facts.arguments is None)


@settings(max_examples=150, deadline=None)
@given(st.text() | st.lists(st.sampled_from(SNIPPETS)).map("".join))
def test_no_text_of_a_log_breaks_the_fallback(body: str) -> None:
    fallback.claims(record(body))
    fallback.read(record(body))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), values, min_size=1, max_size=6), st.randoms())
def test_what_is_enough_evidence_for_reading_is_claimed(attributes: dict[str, Any], random: Any) -> None:
    one = named("work", attributes)
    if fallback.read(one) is not None:
        assert fallback.claims(one)


def test_a_large_hostile_record_is_bounded_work() -> None:
    """So many fields are looked at; quotes and brackets are walked over once."""
    wide = {f"tool.args.k{number}": "v" for number in range(10_000)} | {"tool.name": "t"}
    facts = fallback.read(named("tool: t", wide))
    assert facts is not None
    assert len(facts.arguments) <= fallback.MAX_FIELDS
    many = {f"tool.args.k{number}.z": "v" for number in range(10_000)}
    _known.clear()
    fallback.claims(named("x", many))
    assert len(_known) <= fallback.MAX_FIELDS
    deep: dict[str, Any] = {}
    for _ in range(1000):
        deep = {"data": deep}
    fallback.read(record(deep))
    fallback.read(record("tool=" + "{" * logtext.MAX_TEXT))
    fallback.read(record("tool_call " + "a={ " * 16_000))
