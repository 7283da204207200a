"""What the demo shows: who was stopped, before what, why, how fast, and what an operator does next."""

from __future__ import annotations

import io
import shlex
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sidecar.cli.terminal import safe
from sidecar.demo.agents import FLEET, TURNS
from sidecar.demo.scenes import Scene
from sidecar.demo.story import Act, Evidence, Outcome, Stop

WIDTH = 96
PIECES = 4
"""Pieces of evidence shown of one alert; `sidecar alerts NAME` shows them all."""

Rows = list[tuple[str, str]]
"""A word at the margin, and lines beside it."""


def opening(scene: Scene, outcome: Outcome, port: int, metrics: str) -> RenderableType:
    """What is about to be seen."""
    gate = {
        "in": "All of them are gated.",
        "out": f"All are gated but {TURNS}, which calls its tools directly.",
        "sidecar stopped": f"All are gated, and the sidecar is stopped before {TURNS} writes.",
    }[outcome.gate]
    words = (
        f"{scene.company}: {len(FLEET)} agents at their morning's work, each a process with the agent library. "
        f"{gate}\nThe sidecar was ready after {outcome.ready_s:.1f} s (http://{metrics}/metrics). Mail goes to an SMTP "
        f"server on 127.0.0.1:{port}.\n"
    )
    return Text(words)


def line(act: Act) -> RenderableType:
    """One act as it happens."""
    if act.ran:
        words = "ran, nobody was asked" if act.answer == "not asked" else f"{act.answer} in {act.ms:.1f} ms"
    else:
        words = f"NOT RUN: {act.answer} after {act.ms:.1f} ms"
    return Text(safe(f"  {act.agent:<16} {_short(act):<34.34} {words}"), style="" if act.ran else "bold red")


def ending(outcome: Outcome, name: str) -> RenderableType:
    """An agent that has ended, or the sidecar."""
    if name not in FLEET:
        return Text(f"  {name} has been stopped", style="bold yellow")
    acts = [act for act in outcome.acts if act.agent == name]
    why = outcome.ends[name]
    words = f"finished, {sum(act.ran for act in acts)} acts" if why == "done" else f"ended by {why}"
    return Text(safe(f"  {name:<16} {words}"))


def closing(scene: Scene, outcome: Outcome) -> RenderableType:
    """What came of it: who, what, why, how fast; the mailbox; the other agents."""
    threat = f'send_mail to {scene.threat.to}, "{scene.threat.subject}"\n' + _cut(scene.threat.body, 640)
    session = outcome.sessions.get(TURNS, "")
    who = f"{TURNS}, session {session}" if session else f"{TURNS}, unknown to the sidecar"
    rows: Rows = [("who", who), ("what", threat)]
    stop, refusal = outcome.stop, outcome.refusal
    if stop is not None and refusal is not None:
        held = "PAUSED" if stop.state == "paused" else "HELD"
        title, style = f"{held} before the mail left", "bold red"
        rows += [("why" if n == 0 else "", words) for n, words in enumerate(_why(stop))]
        after = f"; {outcome.since_read_s:.1f} s after it had read of it" if outcome.since_read_s else ""
        fast = f"{refusal.ms:.1f} ms from the question, which carried its newest spans, to the refusal{after}"
        rows.append(("how fast", f"{fast}\nthe agent has followed: {stop.observed}"))
    elif refusal is not None:
        title, style = "NOT SENT: nobody could judge it, so it did not run", "bold yellow"
        kind = "judged" if refusal.judged else "system"
        rows += [("why", f"a {kind} refusal, {refusal.answer}: {refusal.words}"),
                 ("how fast", f"{refusal.ms:.0f} ms until the first refusal; asked again, then given up")]  # fmt: skip
    elif outcome.gate == "out":
        title, style = "DELIVERED: the gate was taken out of the script", "bold yellow"
        rows.append(("why", "its tool was called directly: nobody was asked, and no span told of it"))
    else:
        title, style = "DELIVERED: it was asked for, and no detector saw anything in it", "bold yellow"
        rows.append(("why", f"the tone {outcome.tone!r} is beyond the detectors; see sidecar/demo/scenes.py"))
    sent = outcome.delivered.get(TURNS, 0)
    rows.append(("mailbox", f"{sent or 'no'} mail{'' if sent == 1 else 's'} of {TURNS}; {_others_mail(outcome)}"))
    rows.append(("the others", _others(outcome)))
    return Group(Text(title, style=style), _grid(rows))


def next_steps(outcome: Outcome, stop: Stop) -> RenderableType:
    """What an operator can type now, once `SIDECAR_OPERATORS` is set."""
    command, session = _command(), stop.session
    alert = stop.grounds[0].alert[:12] if stop.grounds else "ALERT"
    rows: Rows = [
        (f"{command} sessions --held", "who is held"),
        (f"{command} alerts {alert}", "the evidence"),
        (f"{command} terminate {session} -r blackmail", "end it for good"),
        (f"{command} resume {session} -r harmless", "let it go on"),
        (f"{command} review {alert} true_positive", "close the alert"),
    ]
    return Group(Text("What an operator does next", style="bold"), _grid(rows, margin="cyan"))


def door(socket: Path) -> RenderableType:
    """How another terminal reaches this sidecar."""
    return Text(
        f"\nIn another terminal, first:  export SIDECAR_OPERATORS={shlex.quote(str(socket))}\n"
        "All of it stays up until Ctrl-C."
    )


def save(path: Path, parts: Iterable[RenderableType]) -> None:
    """Draws the parts into an SVG that needs nothing from elsewhere.

    Raises:
        OSError: The file cannot be written.
    """
    console = Console(record=True, width=WIDTH + 2, file=io.StringIO(), force_terminal=True, color_system="truecolor",
                      highlight=False, markup=False, emoji=False, legacy_windows=False)  # fmt: skip
    for part in (*parts, ""):
        console.print(part)
    path.write_text(console.export_svg(title="make demo", code_format=SVG, unique_id="pause"), "utf-8")


# ---------------------------------------------------------------- words


def _why(stop: Stop) -> list[str]:
    """The rules, each with its evidence, and what else the agent had been told that weighs."""
    told = []
    for ground in stop.grounds:
        told.append(f"{ground.detector} ({ground.severity}, {ground.action}): {ground.text}")
        told += [f"{_where(piece)}\n  {_quoted(piece)}" for piece in ground.evidence[:PIECES]]
    if stop.stressors:
        told.append(f"it had been told of: {', '.join(word.partition('.')[2] or word for word in stop.stressors)}")
    return told


def _where(piece: Evidence) -> str:
    about = f", {piece.act}" if piece.act else ", the mail"
    return f"span {piece.span}{about}: {piece.field}[{piece.start}:{piece.end}]"


def _quoted(piece: Evidence) -> str:
    """An excerpt of a mail that was to be sent begins and ends anywhere; of what was read only its kind is kept."""
    return piece.excerpt if piece.act else f"… {_cut(piece.excerpt, 200)} …"


def _others(outcome: Outcome) -> str:
    acts = [act for act in outcome.acts if act.agent != TURNS]
    done = sum(outcome.ends.get(name) == "done" for name in outcome.healthy)
    words = (
        f"{done} of {len(outcome.healthy)} finished their work; {sum(act.ran for act in acts)} acts ran, "
        f"{len(outcome.held_wrongly)} held"
    )
    late = sum(not act.judged or act.answer == "no answer, ran" for act in acts)
    return words + (f"\n{late} times no answer came within 0.25 s: what can be undone went on" if late else "")


def _others_mail(outcome: Outcome) -> str:
    return f"{sum(n for name, n in outcome.delivered.items() if name != TURNS)} of the others, delivered"


def _short(act: Act) -> str:
    return f"{act.tool} {' '.join(str(value) for value in act.arguments.values())}".replace("\n", " ")


def _cut(text: str, longest: int) -> str:
    return textwrap.shorten(text, longest, placeholder=" …")


def _grid(rows: Rows, *, margin: str = "bold") -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=margin, no_wrap=True)
    grid.add_column(overflow="fold")
    for word, told in rows:
        grid.add_row(f"  {word}", Text(safe(told)))
    return grid


def _command() -> str:
    """The installed command as it can be typed here."""
    installed = Path(sys.executable).with_name("sidecar")
    here = Path.cwd()
    return str(installed.relative_to(here)) if installed.is_relative_to(here) else "sidecar"


SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: arial, sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""
"""Rich's own, without the fonts that it would fetch."""
