"""The highest epoch of each session on this process's own disk, so that no restart is talked back into running."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from pathlib import Path

from sidecar.agent.errors import SidecarMisconfigured
from sidecar.control.v1 import control_pb2 as pb

log = logging.getLogger("sidecar.agent")

KEPT_S = 30 * 86400
"""A session whose run state has not changed for this long is forgotten when a client starts."""


class EpochStore:
    """One small file a session in `folder`, written whole or not at all; mode 0600.

    Raises:
        SidecarMisconfigured: The folder cannot be made or written.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._lock = threading.Lock()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
            oldest = time.time() - KEPT_S
            for file in self._folder.glob("*.epoch.json"):
                if file.stat().st_mtime < oldest:
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise SidecarMisconfigured(f"state_dir {folder} cannot be used: {error.strerror}") from None

    def load(self, session_id: str) -> pb.SessionState | None:
        """The `SessionState` kept, or None. A file that cannot be read is None: the session starts in HOLD anyway."""
        try:
            kept = json.loads(self._file(session_id).read_text("utf-8"))
            if kept["session_id"] != session_id:
                return None
            return pb.SessionState(
                session_id=session_id, epoch=kept["epoch"], state=kept["state"], pause_id=kept["pause_id"]
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the kept run state of a session cannot be read and is ignored: %s", type(error).__name__)
            return None

    def save(self, state: pb.SessionState) -> None:
        """Keeps `state` unless a higher epoch is kept. A full disk is logged; the state in memory still holds."""
        with self._lock:
            kept = self.load(state.session_id)
            if kept is not None and kept.epoch > state.epoch:
                return
            text = json.dumps(
                {"session_id": state.session_id, "epoch": state.epoch, "state": state.state, "pause_id": state.pause_id}
            )
            try:
                handle, name = tempfile.mkstemp(dir=self._folder)
                try:
                    with os.fdopen(handle, "w", encoding="utf-8") as file:
                        file.write(text)
                        file.flush()
                        os.fsync(file.fileno())
                    Path(name).replace(self._file(state.session_id))
                except BaseException:
                    Path(name).unlink(missing_ok=True)
                    raise
            except OSError as error:
                log.error("the run state of a session could not be kept on disk: %s", error.strerror)

    def _file(self, session_id: str) -> Path:
        return self._folder / (hashlib.sha256(session_id.encode()).hexdigest()[:32] + ".epoch.json")
