"""What a gated act can raise, so that an agent's loop knows whether to stop, to wait, or to tell the model no.

SidecarRefusal          the act did not run
├── ActRefused          this act will not be allowed; asking again in other words counts against the agent
├── ActHeld             a person decides about this act
├── SessionPaused       nothing runs in this session until a person resumes it
├── SessionTerminated   nothing will run in this session again
└── SidecarUnavailable  nobody could judge it: a fault of the system, and no word about the agent
SidecarMisconfigured    the sidecar's door does not know us, or a setting makes no sense: the developer's to mend
"""

from __future__ import annotations


class SidecarRefusal(Exception):  # noqa: N818  # a refusal is no error
    """The act did not run. The text is fit to be given to the model: it names no rule, no score and no reviewer.

    Attributes:
        judged: True when a detector or a person decided; False when the sidecar could not judge, which says nothing
            about the agent: wait `retry_after_s` and ask again.
        decision_id: What a person decides about, "" where nobody does.
        retry_after_s: When asking again makes sense, seconds; 0 when it does not.
        session_id, tool: What was asked; `tool` is "" where no act was.
    """

    judged = True

    def __init__(
        self,
        message: str,
        *,
        judged: bool | None = None,
        decision_id: str = "",
        retry_after_s: float = 0.0,
        session_id: str = "",
        tool: str = "",
    ) -> None:
        super().__init__(message)
        if judged is not None:
            self.judged = judged
        self.decision_id, self.retry_after_s = decision_id, retry_after_s
        self.session_id, self.tool = session_id, tool


class ActRefused(SidecarRefusal):
    """This act is not allowed."""


class ActHeld(SidecarRefusal):
    """A person decides about this act; ask again with the same call id to hear what came of it."""


class SessionPaused(SidecarRefusal):
    """The session is held; nothing runs until a person resumes it."""


class SessionTerminated(SidecarRefusal):
    """The session has been ended for good."""


class SidecarUnavailable(SidecarRefusal):
    """No answer, or none that could judge: a system refusal. Irreversible acts fail closed with it."""

    judged = False


class SidecarMisconfigured(Exception):  # noqa: N818
    """A setting is wrong, or the sidecar does not accept this process's credential or session."""
