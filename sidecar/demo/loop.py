"""One agent of the fleet, a process of its own: runs its script against its tools, with the gate before them or not.

    python -m sidecar.demo.loop mail-assistant --tone plain --smtp 2525 --folder /tmp/work [--ungated]

The agent library finds its sidecar by ``SIDECAR_CONTROL`` and ``SIDECAR_OTLP``. On standard output it tells, one JSON
object a line, what it does. It begins when a line comes on standard input, and ends when standard input does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidecar.demo.agents import FLEET, Place, Role, Script, Step, Tools
from sidecar.demo.scenes import scene

MODEL = "script-1"
LOOK_S = 0.2
"""How often an agent that is held looks whether it may go on."""

Tell = Callable[..., None]
Clock = Callable[[str], None]
"""Called before each act with its tool's name, and before the first with ""; comes back when it is time."""


def run_bare(script: Script, tools: Tools, tell: Tell, wait: Clock) -> None:
    """The script without the library: each tool is simply called."""
    tell("up", session="")
    wait("")
    result: Any = None
    while (step := _next(script, result)) is not None:
        tool, arguments = step
        wait(tool)
        result = tools[tool](**arguments)
        tell("act", tool=tool, arguments=arguments, answer="not asked")
    tell("end", why="done")


def run_gated(name: str, role: Role, script: Script, tools: Tools, tell: Tell, wait: Clock, *, tries: int) -> None:
    """The script behind the gate, as a loop around a model has it: model call, question, act, and again."""
    import sidecar.agent as sidecar

    why = "done"
    with sidecar.connect(name, version=MODEL, on_hold="raise", on_pause="raise") as agent:
        for function in tools.values():
            agent.tool(function)  # so that the sidecar knows what tools there are; the loop below asks by itself
        with (
            agent.session(f"{name}-{uuid.uuid4().hex[:4]}", task_key=f"{name}/this-morning") as session,
            session.run(role.task),
        ):
            tell("up", session=session.id)
            wait("")
            history: list[dict[str, Any]] = [{"role": "user", "content": role.task}]
            result: Any = None
            try:
                while (step := _next(script, result)) is not None:
                    call_id = uuid.uuid4().hex
                    call = {"id": call_id, "name": step[0], "arguments": step[1]}
                    with session.model_call(MODEL, system=role.instructions, input=history) as asked:
                        asked.output({"role": "assistant", "tool_calls": [call]}, model=MODEL)
                    wait(step[0])
                    result = _act(session, step, call_id, tools, tell, tries)
                    history += [
                        {"role": "assistant", "tool_calls": [call]},
                        {"role": "tool", "tool_call_id": call_id, "content": result},
                    ]
            except sidecar.SidecarRefusal as refusal:
                why = type(refusal).__name__
    tell("end", why=why)


def _act(session: Any, step: Step, call_id: str, tools: Tools, tell: Tell, tries: int) -> Any:
    """One act: asked for until somebody has decided, then run; what the model is given of it.

    Raises:
        SidecarRefusal: Nobody could judge it, or the session has been ended.
    """
    from opentelemetry import trace

    import sidecar.agent as sidecar

    tool, arguments = step
    told, unjudged = "", 0
    while True:
        began_ns = time.perf_counter_ns()
        try:
            with session.act(tool, arguments, call_id=call_id) as act:
                ms = (time.perf_counter_ns() - began_ns) / 1e6
                span_id = trace.format_span_id(trace.get_current_span().get_span_context().span_id)
                act.result = result = tools[tool](**arguments)
        except sidecar.SidecarRefusal as refusal:
            ms, answer = (time.perf_counter_ns() - began_ns) / 1e6, type(refusal).__name__
            if answer != told:
                told = answer
                tell("act", tool=tool, arguments=arguments, answer=answer, judged=refusal.judged, ms=ms,
                     words=str(refusal))  # fmt: skip
            if isinstance(refusal, sidecar.ActRefused):
                return str(refusal)
            unjudged += not refusal.judged
            if isinstance(refusal, sidecar.SessionTerminated) or unjudged == tries:
                raise
            time.sleep(max(LOOK_S, refusal.retry_after_s))
        else:
            answer = "no answer, ran" if act.permit.ungated else "allowed"
            tell("act", tool=tool, arguments=arguments, answer=answer, judged=True, ms=ms, span=span_id)
            return result


def _next(script: Script, result: Any) -> Step | None:
    try:
        return script.send(result)
    except StopIteration:
        return None


def main() -> None:
    """Runs one agent to its end."""
    parser = argparse.ArgumentParser(prog="sidecar.demo.loop")
    parser.add_argument("name", choices=FLEET)
    parser.add_argument("--tone", required=True)
    parser.add_argument("--smtp", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pace", type=float, default=0.2, help="seconds between two acts")
    parser.add_argument("--ungated", action="store_true", help="call the tools directly, without the library")
    parser.add_argument("--tries", type=int, default=8, help="how often to ask when nobody can judge")
    parser.add_argument("--cue", default="", help="a tool: wait for another line on standard input before it")
    given = parser.parse_args()
    go = threading.Semaphore(0)

    def listen() -> None:
        for _ in sys.stdin:
            go.release()
        os._exit(0)  # whoever started us has gone

    def tell(kind: str, **facts: Any) -> None:
        print(json.dumps({"kind": kind, "agent": given.name, **facts}), flush=True)  # noqa: T201

    def wait(tool: str) -> None:
        if tool and tool == given.cue:
            tell("cue", tool=tool)
        if tool in ("", given.cue):
            go.acquire()
        time.sleep(given.pace)

    threading.Thread(target=listen, daemon=True).start()
    place = Place(given.name, scene(given.tone), given.smtp, given.folder)
    role = FLEET[given.name]
    script, tools = role.script(place), role.tools(place)
    if given.ungated:
        run_bare(script, tools, tell, wait)
    else:
        run_gated(given.name, role, script, tools, tell, wait, tries=given.tries)


if __name__ == "__main__":
    main()
