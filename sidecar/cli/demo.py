"""`sidecar demo`: a fleet of agents, one that turns, and the pause, on this machine and with nothing but it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType

from sidecar.cli.terminal import NO, OK, Terminal
from sidecar.errors import ConfigError

if TYPE_CHECKING:
    from sidecar.demo.story import Act, Demo, Gate


class Screen(Terminal):
    """A terminal that also shows what Rich lays out."""

    def draw(self, shown: RenderableType, *, width: int) -> None:
        """Draws it, at most `width` columns wide; what agents wrote in it must be `safe` already."""
        if not self.as_json:
            self._guarded(lambda: self._out.print(shown, width=min(width, self._out.width)))


def demo(screen: Screen, *, once: bool, ungated: bool, stopped: bool, tone: str | None, save_svg: Path | None) -> int:
    """Plays it; without `once` it stays up, for an operator to look round and decide, until Ctrl-C."""
    try:
        from sidecar.demo import picture, scenes
        from sidecar.demo.story import Demo
    except ImportError as error:
        if error.name != "aiosmtpd":
            raise
        raise ConfigError("needs a mail server: pip install 'agent-sidecar[server,demo]'", key="demo") from None

    tone = tone or scenes.CAUGHT[0]
    if tone not in scenes.tones():
        raise ConfigError(f"expected one of {', '.join(scenes.tones())}, not {tone!r}", key="--tone")
    if ungated and stopped:
        raise ConfigError("--ungated and --sidecar-stopped exclude each other", key="demo")
    gate: Gate = "out" if ungated else "sidecar stopped" if stopped else "in"

    def draw(shown: RenderableType) -> None:
        screen.draw(shown, width=picture.WIDTH)

    def tell(happened: Act | str) -> None:
        if isinstance(happened, str):
            draw(picture.ending(play.outcome, happened))
        elif happened.tool == "send_mail" or not happened.ran:
            draw(picture.line(happened))

    with _term_as_interrupt(), Demo(tone, gate, tell=tell) as play:
        outcome = play.outcome
        draw(picture.opening(play.scene, outcome, play.post.port, play.sidecar.at["observe"]))
        play.play()
        shown = ["", picture.closing(play.scene, outcome)]
        if outcome.stop is not None:
            shown += ["", picture.next_steps(outcome, outcome.stop)]
        for part in shown:
            draw(part)
        if save_svg is not None:
            picture.save(save_svg, shown[1:])
        screen.show(outcome.plain(), "")
        if not once and not screen.as_json:
            draw(picture.door(play.sidecar.socket))
            _stay(play)
    return OK if outcome.as_expected else NO


def _stay(play: Demo) -> None:
    """Shows what comes of the session that is held; comes back at Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        if play.outcome.stop is not None:
            for _ in play.follow():
                pass
        threading.Event().wait()


@contextlib.contextmanager
def _term_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does, so that nothing stays behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
