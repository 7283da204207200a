"""One session each of frameworks that nobody captured, in the shapes that their sources emit, read to facts.

The shapes are written by hand after the libraries' own code and documents; every session is the same small story: a
user asks to tell Amy that a report is ready, the model calls `send_email`, the tool answers, the model answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from sidecar.core import semconv
from sidecar.core.semconv.facts import Facts, Part, Turn
from sidecar.core.span import Span, SpanEvent
from tests.core.kit import at, span

ASK, DONE = "Tell Amy the report is ready", "Amy has been told"
MAIL = {"to": "amy@corp.example", "body": "The report is ready"}
SENT = "queued as 17"
HISTORY = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": ASK}]
CALLS = [{"id": "c1", "type": "function", "function": {"name": "send_email", "arguments": json.dumps(MAIL)}}]
CALLING = {"role": "assistant", "content": None, "tool_calls": CALLS}
ANSWER = {"role": "assistant", "content": DONE}
J = json.dumps


def named(name: str, attributes: dict[str, Any], **fields: Any) -> Span:
    return span(attributes, 0, 1, name=name, **fields)


def record(body: Any, attributes: dict[str, Any] | None = None, name: str = "") -> Span:
    """A log record as a logging bridge or a file receiver sends it."""
    return replace(span(attributes or {}, 0, 1, name="x"), signal="log", name=name, body=body, start_ns=0)


def event(name: str, attributes: dict[str, Any]) -> SpanEvent:
    return SpanEvent(name, at(0.5), attributes)


def told(part: Part) -> Any:
    match part.type:
        case "call":
            return (part.name, part.value)
        case "response":
            return ("result", part.value)
    return part.text


def turned(turns: Sequence[Turn] | None) -> list[tuple[str, Any]] | None:
    return None if turns is None else [(turn.role, told(part)) for turn in turns for part in turn.parts]


def brief(facts: Facts | None) -> Any:
    """What matters of facts, in few words."""
    if facts is None or facts.kind == "context":
        return None
    if facts.kind == "tool":
        return ("tool", facts.tool, facts.arguments, facts.result)
    return (facts.kind, turned(facts.inputs), turned(facts.outputs))


ASKED = [("system", "Be brief"), ("user", ASK)]
CALLED = [("assistant", ("send_email", MAIL))]
ANSWERED = [("assistant", DONE)]
TOOL = ("tool", "send_email", MAIL, SENT)

STORIES: dict[str, list[tuple[Span, Any]]] = {
    "langfuse": [
        (named("assistant", {"langfuse.observation.type": "agent", "langfuse.observation.input": J({"question": ASK}),
                             "langfuse.observation.output": J({"answer": DONE}), "langfuse.trace.name": "assistant",
                             "langfuse.session.id": "s1"}), ("agent", [("user", ASK)], ANSWERED)),
        (named("gpt", {"langfuse.observation.type": "generation", "langfuse.observation.input": J(HISTORY),
                       "langfuse.observation.model.name": "gpt-x", "langfuse.observation.output": J(CALLING)}),
         ("model", ASKED, CALLED)),
        (named("send_email", {"langfuse.observation.type": "tool", "langfuse.observation.input": J(MAIL),
                              "langfuse.observation.output": J(SENT)}), TOOL),
        (named("send_email", {"langfuse.observation.type": "tool",
                              "langfuse.observation.input": J({"args": [], "kwargs": MAIL}),
                              "langfuse.observation.output": SENT}), TOOL),
        (named("rag", {"langfuse.observation.type": "chain", "langfuse.observation.input": J(MAIL)}), None),
    ],
    "mlflow": [
        (named("send_email", {"mlflow.spanType": J("TOOL"), "mlflow.spanInputs": J(MAIL), "mlflow.spanOutputs": J(SENT),
                              "mlflow.spanFunctionName": J("wrapper"), "mlflow.traceRequestId": J("tr-1")}), TOOL),
        (named("Completions", {"mlflow.spanType": J("CHAT_MODEL"),
                               "mlflow.spanInputs": J({"messages": HISTORY, "model": "gpt-x"}),
                               "mlflow.spanOutputs": J({"choices": [{"index": 0, "message": CALLING}]})}),
         ("model", ASKED, CALLED)),
        (named("predict", {"mlflow.spanType": J("AGENT"), "mlflow.spanInputs": J({"question": ASK}),
                           "mlflow.spanOutputs": J(DONE)}), ("agent", [("user", ASK)], ANSWERED)),
        (named("prepare", {"mlflow.spanType": J("CHAIN"), "mlflow.spanInputs": J({"x": 1})}), None),
    ],
    "agentops": [
        (named("send_email.tool", {"agentops.span.kind": "tool", "operation.name": "send_email",
                                   "agentops.entity.input": J({"args": [], "kwargs": MAIL}),
                                   "agentops.entity.output": J(SENT)}), TOOL),
        (named("tool_usage", {"agentops.span.kind": "tool", "tool.name": "send_email", "tool.parameters": J(MAIL),
                              "tool.result": SENT, "tool.status": "succeeded"}), TOOL),
        (named("agent.run", {"agentops.span.kind": "agent", "agentops.agent.input": ASK,
                             "agentops.agent.output": DONE}), ("agent", [("user", ASK)], ANSWERED)),
    ],
    "haystack": [
        (named("haystack.component.run", {
            "haystack.component.name": "llm", "haystack.component.type": "OpenAIChatGenerator",
            "haystack.component.input": J({"messages": [
                {"role": "system", "meta": {}, "name": None, "content": [{"text": "Be brief"}]},
                {"role": "user", "meta": {}, "name": None, "content": [{"text": ASK}]}]}),
            "haystack.component.output": J({"replies": [{"role": "assistant", "meta": {}, "name": None, "content": [
                {"tool_call": {"tool_name": "send_email", "arguments": MAIL, "id": "c1"}}]}]})}),
         ("model", ASKED, CALLED)),
        (named("haystack.component.run", {
            "haystack.component.name": "tools", "haystack.component.type": "ToolInvoker",
            "haystack.component.input": J({"messages": [ANSWER]})}), None),
        (named("haystack.pipeline.run", {"haystack.pipeline.input_data": J({"llm": {}})}), None),
    ],
    "mastra": [
        (named("tool: 'send_email'", {"mastra.span.type": "tool_call", "mastra.tool_call.input": J(MAIL),
                                      "mastra.tool_call.output": J(SENT)}), TOOL),
        (named("llm: 'gpt-x'", {"mastra.span.type": "model_generation",
                                "mastra.model_generation.input": J({"messages": HISTORY}),
                                "mastra.model_generation.output": J({"text": DONE})}), ("model", ASKED, ANSWERED)),
        (named("agent run: 'mailer'", {"mastra.span.type": "agent_run", "mastra.agent_run.input": ASK,
                                       "mastra.agent_run.output": J({"text": DONE})}),
         ("agent", [("user", ASK)], ANSWERED)),
        (named("workflow run", {"mastra.span.type": "workflow_run", "mastra.workflow_run.input": J(MAIL)}), None),
    ],
    "genkit": [
        (named("send_email", {"genkit:type": "action", "genkit:metadata:subtype": "tool", "genkit:name": "send_email",
                              "genkit:path": "/{mailFlow,t:flow}/{send_email,t:action,s:tool}",
                              "genkit:input": J(MAIL), "genkit:output": J(SENT), "genkit:state": "success"}), TOOL),
        (named("send_email", {"genkit:type": "action", "genkit:metadata:subtype": "tool.v2",
                              "genkit:name": "send_email", "genkit:input": J(MAIL), "genkit:output": J(SENT)}), TOOL),
        (named("vendor/model-x", {
            "genkit:type": "action", "genkit:metadata:subtype": "model", "genkit:name": "vendor/model-x",
            "genkit:input": J({"messages": [{"role": "system", "content": [{"text": "Be brief"}]},
                                            {"role": "user", "content": [{"text": ASK}]}], "config": {}}),
            "genkit:output": J({"message": {"role": "model", "content": [
                {"toolRequest": {"name": "send_email", "ref": "c1", "input": MAIL}}]}, "finishReason": "stop"})}),
         ("model", ASKED, CALLED)),
        (named("mailFlow", {"genkit:type": "action", "genkit:metadata:subtype": "flow", "genkit:name": "mailFlow",
                            "genkit:input": J(ASK), "genkit:isRoot": True}), None),
    ],
    "spring ai": [
        (named("tool_call send_email", {
            "gen_ai.operation.name": "framework", "gen_ai.system": "spring_ai", "spring.ai.kind": "tool_call",
            "spring.ai.tool.definition.name": "send_email", "spring.ai.tool.definition.description": "Sends mail",
            "spring.ai.tool.definition.schema": "{}", "spring.ai.tool.call.id": "c1",
            "spring.ai.tool.call.arguments": J(MAIL), "spring.ai.tool.call.result": J(SENT)}), TOOL),
        (named("spring_ai chat_client", {"gen_ai.operation.name": "framework", "spring.ai.kind": "chat_client",
                                         "spring.ai.chat.client.input": ASK, "spring.ai.chat.client.output": DONE}),
         ("agent", [("user", ASK)], ANSWERED)),
    ],
    "litellm proxy": [
        (named("raw_gen_ai_request", {"llm.openai.messages": repr(HISTORY), "llm.openai.model": "gpt-x",
                                      "llm.openai.choices": repr([{"index": 0, "message": ANSWER}])}),
         ("model", ASKED, ANSWERED)),
        (named("proxy_pre_call", {"service": "proxy", "call_type": "acompletion"}), None),
    ],
    "datadog naming": [
        (named("send_email", {"_ml_obs.meta.span.kind": "tool", "_ml_obs.meta.input.value": J(MAIL),
                              "_ml_obs.meta.output.value": SENT}), TOOL),
        (named("openai.request", {"_ml_obs.meta.span.kind": "llm", "_ml_obs.meta.input.messages": J(HISTORY),
                                  "_ml_obs.meta.output.messages": J([ANSWER])}), ("model", ASKED, ANSWERED)),
    ],
    "agent universe": [
        (named("tool", {"au.span.kind": "tool", "au.tool.name": "send_email", "au.tool.input": J(MAIL),
                        "au.tool.output": J(SENT), "au.tool.pair_id": "tool-1", "au.tool.duration": 0.8}), TOOL),
    ],
    "llamaindex workflow": [
        (named("FunctionTool.acall", {"tool.name": "send_email", "tool_kwargs": J(MAIL), "tool_output": SENT}), TOOL),
        (named("FunctionAgent.call_tool", {}, events=(event("AgentToolCallEvent", {
            "arguments": J(MAIL), "tool.name": "send_email", "tool.description": "Sends mail"}),)),
         ("tool", "send_email", MAIL, None)),
    ],
    "strands and agentcore": [
        (named("execute_event_loop_cycle", {"event_loop.cycle_id": "u1", "event_loop.parent_cycle_id": "u0"}), None),
        (named("execute_tool send_email", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "send_email",
                                           "gen_ai.tool.call.id": "c1", "tool.status": "success", "session.id": "s1"},
               events=(event("gen_ai.tool.message", {"role": "tool", "content": J(MAIL), "id": "c1"}),
                       event("gen_ai.choice", {"message": J([{"text": SENT}]), "id": "c1"}))), TOOL),
        (named("chat", {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"},
               events=(event("gen_ai.user.message", {"content": J([{"text": ASK}])}),
                       event("gen_ai.choice", {"finish_reason": "tool_use", "message": J(
                           [{"toolUse": {"name": "send_email", "toolUseId": "c1", "input": MAIL}}])}))),
         ("model", [("user", ASK)], CALLED)),
    ],
    "azure ai foundry agents": [
        (named("create_message", {"gen_ai.operation.name": "create_message", "gen_ai.thread.id": "t1"},
               events=(event("gen_ai.user.message",
                             {"gen_ai.event.content": J({"role": "user", "content": ASK})}),)),
         ("agent", [("user", ASK)], None)),
    ],
    "openlit": [
        (named("openai.chat.completions", {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"},
               events=(event("gen_ai.content.prompt", {"gen_ai.prompt": f"user: {ASK}"}),
                       event("gen_ai.content.completion", {"gen_ai.completion": DONE}))),
         ("model", [("user", f"user: {ASK}")], ANSWERED)),
    ],
    "koog and rig": [
        (named("execute_tool send_email", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "send_email",
                                           "input.value": J(MAIL), "output.value": SENT}), TOOL),
        (named("execute_tool", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "send_email",
                                "gen_ai.tool.call.arguments": J(MAIL), "gen_ai.tool.call.result": SENT,
                                "code.namespace": "rig::agent", "busy_ns": 4, "thread.id": 1}), TOOL),
        (named("node send", {"koog.node.name": "send", "koog.run.id": "r"}), None),
    ],
    "half of a convention": [
        (named("execute_tool send_email", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "send_email",
                                           "tool.args": J(MAIL), "tool.result": SENT}), TOOL),
        (named("tool", {"gen_ai.tool.name": "send_email", "gen_ai.tool.arguments": J(MAIL),
                        "gen_ai.tool.output": SENT}), TOOL),
        (named("tool", {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "send_email",
                        "tool.parameters": J({"properties": {"to": {"type": "string"}}, "required": ["to"]})}),
         ("tool", "send_email", None, None)),
    ],
    "dspy": [
        (named("ReAct.forward", {"dspy.module": "ReAct", "question": ASK, "answer": DONE}),
         ("agent", [("user", ASK)], ANSWERED)),
        (named("Tool.send_email", {"tool_name": "send_email", "tool_args": repr(MAIL), "observation": SENT}), TOOL),
    ],
    "n8n": [
        (named("n8n.node.execute", {"n8n.node.type": "@n8n/n8n-nodes-langchain.toolWorkflow",
                                    "n8n.node.name": "Send mail", "n8n.node.input": J(MAIL), "tool_name": "send_email",
                                    "n8n.node.output": SENT}), TOOL),
        (named("n8n.node.execute", {"n8n.node.type": "n8n-nodes-base.httpRequest", "n8n.node.name": "Fetch",
                                    "n8n.node.input": J(MAIL), "n8n.node.output": "{}"}), None),
    ],
    "dify and flowise": [
        (named("Calculator", {"node_type": "tool", "node_id": "n1", "inputs": J(MAIL), "outputs": SENT,
                              "tool_name": "send_email"}), TOOL),
        (named("LLM node", {"node_type": "llm", "prompts": J(HISTORY), "outputs": J({"text": DONE})}),
         ("model", ASKED, ANSWERED)),
    ],
    "letta": [
        (record({"message_type": "user_message", "content": ASK}), ("agent", [("user", ASK)], None)),
        (record({"message_type": "tool_call_message",
                 "tool_call": {"name": "send_email", "arguments": J(MAIL), "tool_call_id": "c1"}}),
         ("tool", "send_email", MAIL, None)),
        (record({"message_type": "tool_return_message", "tool_call_id": "c1", "tool_return": SENT,
                 "status": "success"}), ("tool", "", None, SENT)),
        (record({"message_type": "assistant_message", "content": DONE}), ("agent", None, ANSWERED)),
    ],
    "rasa": [
        (record({"event": "user", "text": ASK, "sender_id": "u"}), ("agent", [("user", ASK)], None)),
        (record({"event": "bot", "text": DONE, "sender_id": "u"}), ("agent", None, ANSWERED)),
        (record({"event": "slot", "name": "city", "value": "Rome"}), None),
    ],
    "copilotkit": [
        (record({"type": "TOOL_CALL_START", "toolCallId": "c1", "toolCallName": "send_email"}),
         ("tool", "send_email", None, None)),
        (record({"type": "TOOL_CALL_RESULT", "toolCallId": "c1", "content": SENT}), ("tool", "", None, SENT)),
        (record({"type": "TEXT_MESSAGE_CONTENT", "delta": "Am"}), None),
    ],
    "mcp on the wire": [
        (record({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
                 "params": {"name": "send_email", "arguments": MAIL}}), ("tool", "send_email", MAIL, None)),
        (record({"jsonrpc": "2.0", "id": 6, "method": "tools/list"}), None),
    ],
    "botpress": [
        (record({"type": "tool_call", "data": {"tool": "send_email", "input": MAIL, "output": SENT}}), TOOL),
    ],
    "react, printed": [
        (record(f"Thought: I should write\nAction: send_email\nAction Input: {J(MAIL)}\nObservation: {SENT}"), TOOL),
        (named("agent.step", {"step.thought": "write", "step.action": "send_email", "step.action_input": J(MAIL),
                              "step.observation": SENT}), TOOL),
        (named("step", {"action": "send_email", "action_input": J(MAIL), "observation": SENT}), TOOL),
    ],
    "home-made spans": [
        (named("tool:send_email", {"args": J(MAIL), "result": SENT}), TOOL),
        (named("tool: send_email", {"input": J(MAIL), "output": SENT}), TOOL),
        (named("tool.send_email", {"tool.input": J(MAIL), "tool.output": SENT}), TOOL),
        (named("agent.tool.send_email", {"agent.tool.args": J(MAIL), "agent.tool.result": SENT}), TOOL),
        (named("app.tool.send_email", {"tool.args.to": MAIL["to"], "tool.args.body": MAIL["body"],
                                       "tool.args.length": 60, "tool.result": SENT}), TOOL),
        (named("call_tool send_email", {"parameters": J(MAIL), "response": SENT}), TOOL),
        (named("execute_tool send_email", {"payload": "x"}), ("tool", "send_email", None, None)),
        (named("run send_email", {"args": J(MAIL), "tool.result": SENT}), TOOL),
        (named("work", {"app.tool.name": "send_email", "my.tool.args": J(MAIL), "app.tool.response": SENT}), TOOL),
        (named("work", {"toolName": "send_email", "toolInput": J(MAIL), "toolOutput": SENT}), TOOL),
        (named("work", {"function.name": "send_email", "function.arguments": J(MAIL), "function.result": SENT}), TOOL),
        (named("work", {"function_name": "send_email", "arguments": MAIL, "return_value": SENT}), TOOL),
        (named("work", {"agent.tool.name": "send_email", "agent.tool.input": repr(MAIL), "agent.tool.output": SENT}),
         TOOL),
        (named("work", {"tool_call": J({"name": "send_email", "arguments": MAIL}), "tool_result": SENT}), TOOL),
        (named("work", {"tool": "send_email", "input": J(MAIL), "output": SENT}), TOOL),
        (named("step", {"step.tool": "send_email", "step.input": J(MAIL), "step.output": SENT}), TOOL),
        (named("send_email", {"tool.input": J(MAIL), "tool.output": SENT}), TOOL),
        (named("act", {"agent.action": "send_email", "agent.action.args": J(MAIL), "agent.action.result": SENT}), TOOL),
        (named("act", {"toolcall.name": "send_email", "toolcall.args": J(MAIL), "toolcall.result": SENT}), TOOL),
        (named("act", {"tool_name": "send_email", "tool_payload": J(MAIL), "tool_response": SENT}), TOOL),
        (named("act", {"tool_name": "send_email", "tool_arguments": J(MAIL), "tool_response": SENT}), TOOL),
        (named("call_tool", {"name": "send_email", "arguments": J(MAIL), "output": SENT}), TOOL),
        (named("work", {}, events=(event("tool_call", {"tool": "send_email", "args": J(MAIL)}),
                                   event("tool_result", {"tool": "send_email", "result": SENT}))), TOOL),
        (named("turn", {}, events=(event("tool_call", {"tool": "send_email", "args": J(MAIL)}),
                                   event("tool_call", {"tool": "post", "args": J(MAIL)}))),
         ("model", None, [*CALLED, ("assistant", ("post", MAIL))])),
        (named("work", {"llm.messages.0.role": "system", "llm.messages.0.content": "Be brief",
                        "llm.messages.1.role": "user", "llm.messages.1.content": ASK,
                        "output_messages.0.role": "assistant", "output_messages.0.content": DONE}),
         ("model", ASKED, ANSWERED)),
        (named("llm.call", {"llm.prompt": ASK, "llm.response": DONE}), ("model", [("user", ASK)], ANSWERED)),
        (named("llm", {"input": ASK, "output": DONE}), ("model", [("user", ASK)], ANSWERED)),
        (named("chat", {"prompt_text": ASK, "completion": DONE}), ("model", [("user", ASK)], ANSWERED)),
        (named("work", {"messages": J(HISTORY), "response": DONE}), ("model", ASKED, ANSWERED)),
        (named("work", {"prompt": ASK, "tool_calls": J(CALLS), "model": "x"}), ("model", [("user", ASK)], CALLED)),
        (named("agent.run", {"input": ASK, "output": DONE}), ("agent", [("user", ASK)], ANSWERED)),
        (named("handle", {"user_input": ASK, "final_answer": DONE}), ("agent", [("user", ASK)], ANSWERED)),
        (named("handle", {"question": ASK, "answer": DONE}), ("agent", [("user", ASK)], ANSWERED)),
        (named("handle", {"user_input": ASK, "response": DONE}), ("agent", [("user", ASK)], ANSWERED)),
    ],
    "home-made logs": [
        (record({"event": "tool_call", "tool": "send_email", "args": MAIL, "call_id": "c1"}),
         ("tool", "send_email", MAIL, None)),
        (record({"type": "tool_result", "id": "c1", "content": SENT}), ("tool", "", None, SENT)),
        (record({"role": "user", "content": ASK}), ("agent", [("user", ASK)], None)),
        (record({"role": "assistant", "content": DONE}), ("agent", None, ANSWERED)),
        (record(CALLING), ("model", None, CALLED)),
        (record({"role": "tool", "tool_call_id": "c1", "content": SENT}), ("tool", "", None, SENT)),
        (record(J({"event": "tool_call", "tool": "send_email", "args": MAIL, "level": "info", "timestamp": "now"})),
         ("tool", "send_email", MAIL, None)),
        (record(J({"level": 30, "msg": "tool_call", "toolName": "send_email", "args": J(MAIL)})),
         ("tool", "send_email", MAIL, None)),
        (record(J({"text": "…", "record": {"message": "tool_call", "function": "main", "name": "agent",
                                           "extra": {"tool": "send_email", "args": MAIL, "result": SENT}}})), TOOL),
        (record("tool_call", {"tool": "send_email", "args": J(MAIL)}), ("tool", "send_email", MAIL, None)),
        (record("done", {"event.name": "tool_result", "tool": "send_email", "output": SENT, "call_id": "c1"}),
         ("tool", "send_email", None, SENT)),
        (record(f'event=tool_call tool=send_email args={J(MAIL)} call_id=c1'), ("tool", "send_email", MAIL, None)),
        (record(f"now | INFO | agent:run:42 - tool_call tool=send_email args={MAIL!r} result='{SENT}'"), TOOL),
        (record(f"Calling tool send_email with {J(MAIL)}"), ("tool", "send_email", MAIL, None)),
        (record(f"Calling tool: `send_email` with args: {MAIL!r}"), ("tool", "send_email", MAIL, None)),
        (record(f"tool_call: send_email({J(MAIL)})"), ("tool", "send_email", MAIL, None)),
        (record({"event": "on_tool_start", "name": "send_email", "data": {"input": MAIL}, "run_id": "r"}),
         ("tool", "send_email", MAIL, None)),
        (record({"thought": "w", "action": {"tool": "send_email", "args": MAIL}, "observation": SENT}), TOOL),
        (record({"action": {"name": "send_email", "input": MAIL}, "observation": SENT}), TOOL),
        (record({"tool": {"name": "send_email", "arguments": J(MAIL)}, "result": {"content": SENT}}), TOOL),
        (record({"request": {"messages": HISTORY, "model": "x"}, "response": {"choices": [{"message": CALLING}]}}),
         ("model", ASKED, CALLED)),
        (record({"type": "human", "content": ASK}), ("agent", [("user", ASK)], None)),
        (record({"sender": "bot", "text": DONE}), ("agent", None, ANSWERED)),
        (record({"event": "agent.tool.call", "tool_name": "send_email", "tool_args": MAIL}),
         ("tool", "send_email", MAIL, None)),
        (record({"type": "message", "role": "assistant", "content": [
            {"type": "tool_use", "id": "c1", "name": "send_email", "input": MAIL}]}), ("model", None, CALLED)),
        (record({"type": "tool_use", "id": "c1", "name": "send_email", "input": MAIL}),
         ("tool", "send_email", MAIL, None)),
        (record({"message": {"role": "user", "content": [{"type": "text", "text": ASK}]}, "session_id": "s1"}),
         ("agent", [("user", ASK)], None)),
        (record({"event": "llm_call", "prompt": ASK, "response": DONE, "model": "x"}),
         ("model", [("user", ASK)], ANSWERED)),
    ],
}  # fmt: skip

CASES = [
    pytest.param(one, expected, id=f"{framework}-{number}")
    for framework, story in STORIES.items()
    for number, (one, expected) in enumerate(story)
]


@pytest.mark.parametrize(("one", "expected"), CASES)
def test_what_each_record_of_an_unseen_framework_says(one: Span, expected: Any) -> None:
    assert brief(semconv.read(one)) == expected


def test_a_call_and_its_result_bear_the_same_id() -> None:
    for framework in ("home-made logs", "letta", "copilotkit"):
        ids = {facts.call_id for one, _ in STORIES[framework] if (facts := semconv.read(one)) and facts.kind == "tool"}
        assert "c1" in ids, framework


def test_a_log_that_names_its_session_is_of_that_session() -> None:
    for body in (
        {"session_id": "s1", "role": "user", "content": ASK},
        {"role": "user", "content": ASK, "threadId": "s1"},
    ):
        facts = semconv.read(record(J(body)))
        assert facts is not None
        assert facts.session == "s1"


def test_a_log_says_whose_agent_and_user_it_is_of() -> None:
    facts = semconv.read(record(J({"agent_name": "mailer", "user_id": "u1", "event": "tool_call", "tool": "t"})))
    assert facts is not None
    assert (facts.agent_name, facts.user) == ("mailer", "u1")


@pytest.mark.parametrize("framework", ["langfuse", "mlflow", "spring ai", "home-made spans"])
def test_a_story_of_spans_says_who_asked_what_was_done_and_what_was_answered(framework: str) -> None:
    """Each framework tells the act with its arguments, whatever else it tells."""
    facts = [facts for one, _ in STORIES[framework] if (facts := semconv.read(one)) is not None]
    assert any(one.kind == "tool" and one.arguments == MAIL and not one.unscored for one in facts)
    assert any(one.inputs for one in facts if one.kind in ("agent", "model"))


def test_events_of_a_span_that_are_no_calls_say_nothing() -> None:
    other = (event("exception", {"exception.type": "ToolError"}), event("cache_hit", {"tool": "x", "args": "{}"}))
    assert semconv.read(replace(named("job", {}), events=other)) is None


# ---------------------------------------------------------------- what real libraries sent that nobody here had seen


def test_an_argument_is_one_whatever_it_is_called() -> None:
    read = semconv.read(named("step", {
        "step.kind": "action", "action.name": "find", "action.input.query": "INV-1", "action.input.limit": 5,
        "action.input.name": "a.txt", "observation": "1 match",
    }))  # fmt: skip
    assert read is not None
    assert (read.tool, read.arguments) == ("find", {"query": "INV-1", "limit": 5, "name": "a.txt"})
    assert read.result == "1 match"


def test_an_argument_called_name_is_not_the_tools_name() -> None:
    read = semconv.read(named("t", {"tool.name": "open_file", "tool.args.name": "a.txt", "tool.args.mode": "r"}))
    assert read is not None
    assert (read.tool, read.arguments) == ("open_file", {"name": "a.txt", "mode": "r"})


def test_a_logged_object_that_names_its_session_in_one_word_is_of_that_session() -> None:
    read = semconv.read(record(J({"event": "tool_call", "session": "s-88", "tool": "send_email", "args": MAIL})))
    assert read is not None
    assert (read.session, read.tool, read.arguments) == ("s-88", "send_email", MAIL)


def test_a_method_that_calls_a_tool_is_not_its_name() -> None:
    read = semconv.read(named("send_email.__call__", {
        "openinference.span.kind": "TOOL", "input.value": J({"kwargs": MAIL}), "output.value": J(SENT),
    }))  # fmt: skip
    assert read is not None
    assert (read.tool, read.arguments, read.result) == ("send_email", MAIL, SENT)


def _wrapped(arguments: dict[str, Any], properties: dict[str, Any]) -> Any:
    read = semconv.read(named("send_email", {
        "openinference.span.kind": "TOOL", "tool.name": "send_email", "input.value": J(arguments),
        "tool.json_schema": J({"type": "object", "properties": properties}), "output.value": SENT,
    }))  # fmt: skip
    assert read is not None
    return read.arguments


def test_a_schema_tells_arguments_from_what_a_frameworks_call_puts_round_them() -> None:
    text = {"type": "string"}
    assert _wrapped({"input": MAIL, "options": None}, {"to": text, "body": text}) == MAIL
    own = {"input": MAIL, "options": None}
    assert _wrapped(own, {"input": {"type": "object"}, "options": text}) == own
    assert _wrapped(own, {"cc": text}) == own


def test_an_empty_list_of_answers_keeps_them_to_itself() -> None:
    read = semconv.read(named("chat", {
        "gen_ai.operation.name": "chat", "gen_ai.response.finish_reasons": ["tool_calls"],
        "gen_ai.input.messages": "[]", "gen_ai.output.messages": "[]",
    }))  # fmt: skip
    assert read is not None
    assert (read.outputs, read.withheld) == (None, ("outputs",))
