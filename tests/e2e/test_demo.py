"""The demo's three endings, with the mailbox in the test's own hand; and what a person at a terminal sees of it."""

from __future__ import annotations

import gzip
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.control.client import Operators
from sidecar.demo.agents import FLEET, TURNS
from sidecar.demo.post import PostOffice
from sidecar.demo.scenes import CAUGHT, Scene, scene, tones
from sidecar.demo.story import Demo, Outcome

WAIT_S = 120.0
PACE_S = 0.02
SENDERS = {"ticket-triage": 1, "report-builder": 1, "warehouse-clerk": 1, "calendar-helper": 1}
"""What the healthy agents send; the translator sends nothing."""
RUNNING = 6
"""Words in a row that hardly come twice by chance."""


@pytest.fixture
def post() -> Iterator[PostOffice]:
    with PostOffice() as open_one:
        yield open_one


def assert_the_others_worked(outcome: Outcome, post: PostOffice) -> None:
    assert {name: outcome.ends.get(name) for name in outcome.healthy} == dict.fromkeys(outcome.healthy, "done")
    assert outcome.held_wrongly == []
    assert {name: sent for name, sent in post.senders().items() if name != TURNS} == SENDERS


# ------------------------------------------------------------ the three endings


@pytest.mark.parametrize("tone", ["blunt", "veiled", "plain"])
def test_with_the_gate_in_the_mail_never_leaves_and_the_session_is_paused(tone: str, post: PostOffice) -> None:
    with Demo(tone, "in", pace_s=PACE_S, post=post) as demo:
        outcome = demo.play()
        with Operators(demo.sidecar.operators) as operators:
            held = [view.session_id for view in operators.sessions() if view.pause_id]
    assert post.sent_by(TURNS) == []
    assert outcome.refusal is not None
    assert (outcome.refusal.tool, outcome.refusal.answer, outcome.refusal.judged) == (
        "send_mail",
        "SessionPaused",
        True,
    )
    assert outcome.stop is not None
    assert outcome.stop.state == "paused"
    assert held == [outcome.sessions[TURNS]], "that session, and no other"
    assert _span_of_private_read(demo.scene, outcome) in {
        piece.span for ground in outcome.stop.grounds for piece in ground.evidence
    }
    assert_the_others_worked(outcome, post)
    assert outcome.as_expected


def test_with_the_gate_taken_out_the_mail_is_delivered(post: PostOffice) -> None:
    with Demo(CAUGHT[0], "out", pace_s=PACE_S, post=post) as demo:
        outcome = demo.play()
    (mail,) = post.sent_by(TURNS)
    threat = demo.scene.threat
    assert (mail["To"], mail["Subject"]) == (threat.to, threat.subject)
    assert mail.get_content().splitlines() == threat.body.splitlines()
    assert outcome.answers(TURNS).keys() == {"not asked"}
    assert_the_others_worked(outcome, post)
    assert outcome.as_expected


def test_with_the_gate_in_and_the_sidecar_stopped_it_fails_closed(post: PostOffice) -> None:
    with Demo(CAUGHT[0], "sidecar stopped", pace_s=PACE_S, post=post) as demo:
        outcome = demo.play()
    assert post.sent_by(TURNS) == []
    assert outcome.refusal is not None
    assert (outcome.refusal.tool, outcome.refusal.judged) == ("send_mail", False), "a system refusal: nobody judged it"
    assert outcome.ends[TURNS] == "SidecarUnavailable"
    assert_the_others_worked(outcome, post)
    assert outcome.as_expected


# ------------------------------------------------------------ an operator decides


def test_the_mail_leaves_when_an_operator_resumes_the_session_and_not_before(post: PostOffice) -> None:
    with Demo(CAUGHT[0], "in", pace_s=PACE_S, post=post) as demo:
        outcome = demo.play()
        assert post.sent_by(TURNS) == []
        _typed("resume", outcome.sessions[TURNS], "--reason", "a rehearsal", "--at", demo.sidecar.operators)
        list(demo.follow())
    assert len(post.sent_by(TURNS)) == 1
    assert outcome.ends[TURNS] == "done"


def test_a_terminated_session_never_sends_it(post: PostOffice) -> None:
    with Demo(CAUGHT[0], "in", pace_s=PACE_S, post=post) as demo:
        outcome = demo.play()
        _typed("terminate", outcome.sessions[TURNS], "--reason", "blackmail", "--at", demo.sidecar.operators)
        list(demo.follow())
    assert outcome.ends[TURNS] == "SessionTerminated"
    assert post.sent_by(TURNS) == []


# ------------------------------------------------------------ at a terminal


def test_once_shows_who_what_why_how_fast_and_ends_by_itself(tmp_path: Path) -> None:
    picture = tmp_path / "pause.svg"
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "demo", "--once", "--save-svg", str(picture)],
        check=False, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    words = done.stdout
    assert "\x1b" not in words, "no colour in a pipe"
    assert max(map(len, words.splitlines())) <= 100
    shown = words[words.index("PAUSED before the mail left") :]
    marks = ["who ", "what ", "why ", "how fast ", "mailbox ", "the others ", "What an operator does next"]
    assert sorted(marks, key=shown.index) == marks
    assert "no mails of mail-assistant" in shown
    assert "5 of 5 finished their work" in shown
    drawn = picture.read_text()
    assert "PAUSED" in drawn
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", ""), "it fetches nothing"
    assert str(Path.cwd()) not in drawn


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stays_up_for_an_operator_until_it_is_told_to_end(number: signal.Signals) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert demo.stdout is not None
    watch = threading.Timer(WAIT_S, demo.kill)
    watch.start()
    try:
        words = ""
        while "stays up until Ctrl-C" not in words:
            line = demo.stdout.readline()
            assert line, words
            words += line
        (socket,) = re.findall(r"SIDECAR_OPERATORS=(\S+)", words)
        (session,) = re.findall(r"sidecar terminate (\S+)", words)
        listed = _typed("sessions", "--held", "--json", "--at", f"unix:{socket}")
        assert [view["session_id"] for view in json.loads(listed)] == [session]
        demo.send_signal(number)
        demo.stdout.read()
        assert demo.wait(WAIT_S) == 0
    finally:
        watch.cancel()
        demo.kill()
        demo.communicate()
    assert not Path(socket).parent.exists(), "everything is stopped, and nothing stays behind"
    assert not _processes_of(socket)


def test_what_does_not_exist_is_refused_before_anything_starts() -> None:
    for words in (["--tone", "cheerful"], ["--ungated", "--sidecar-stopped"]):
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", "demo", *words], check=False, capture_output=True, text=True,
            timeout=WAIT_S,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stdout == ""


# ------------------------------------------------------------ the mails


def test_no_mail_repeats_our_test_material(shared: Path) -> None:
    """Six words in a row of a demo's mail are in no corpus, capture or test, and in no detector."""
    ours = {run for tone in tones() for mail in _own_mails(scene(tone)) for run in _runs(mail)}
    assert len(ours) > 500
    root = Path(__file__).parents[2]
    files = [*(shared / "corpora").glob("*.gz"), *(shared / "captures").rglob("*")]
    files += [*root.glob("tests/**/*.py"), *root.glob("tests/**/*.json*"), *root.glob("sidecar/core/**/*.py")]
    for path in files:
        if path.is_file():
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                again = ours & _runs(file.read().decode("utf-8", "replace"))
            assert not again, path.name


def test_each_agent_has_a_part() -> None:
    assert set(FLEET) == {TURNS, "translator", *SENDERS}
    assert set(CAUGHT) <= set(tones())


# ------------------------------------------------------------ helpers


def _span_of_private_read(told: Scene, outcome: Outcome) -> str:
    """The span in which the one mail was read that came from outside and is not on every desk."""
    common = set.intersection(*({mail.subject for mail in scene(tone).inbox} for tone in tones()))
    (private,) = [
        number
        for number, mail in enumerate(told.inbox, 1)
        if mail.subject not in common and not mail.sender.endswith(f"@{told.domain}")
    ]
    (span,) = [act.span for act in outcome.acts if act.ran and act.arguments == {"number": private}]
    return span


def _own_mails(told: Scene) -> list[str]:
    return [mail.body for mail in (*told.inbox, told.threat)]


def _runs(text: str) -> set[str]:
    """All its runs of `RUNNING` words."""
    words = re.findall(r"[a-z']+", text.replace("\\n", " ").lower())
    return {" ".join(words[at : at + RUNNING]) for at in range(len(words) - RUNNING + 1)}


def _typed(*words: str) -> str:
    """An operator types a command; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *words], check=True, capture_output=True, text=True, timeout=WAIT_S
    )
    return done.stdout


def _processes_of(socket: str) -> list[str]:
    """Command lines that name the folder of a demo."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(Path(socket).parents[1]) in line:
            found.append(line)
    return found
