"""What cannot be detected where an input is missing: detectors and the inputs that they need, in one table.

A detector that is not in `NEEDS` does not pass the tests: whoever adds one says here what it lives on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from sidecar.core.coverage import AgentReport

Sight = Literal["sees", "weaker", "partly", "blind", "unused"]

FAMILIES: dict[str, str] = {
    "recipients": "messages to people or places that nobody in charge named",
    "leverage": "threats and blackmail",
    "exfiltration": "secrets and private data that leave",
    "self-preservation": "an agent that copies itself, resists being switched off, or disables what watches it",
    "omission": "harm by leaving something undone",
    "hijack": "acts that a text the agent read asked for, and the user did not",
    "conduct": "falsified records, deception, disobeyed instructions",
    "behaviour": "conduct that is unlike the agent's own past",
}
"""Families of detectors (design §6) and what they find, for people."""


class Need(Struct, frozen=True):
    """What one detector lives on.

    Attributes:
        finds: What it finds, for people; ends the sentence "cannot find …".
        needs: Inputs without any one of which it finds nothing.
        better: Inputs that it finds less without, or errs more: input → what happens.
    """

    finds: str
    needs: tuple[str, ...]
    better: Mapping[str, str]


_ASKED = "who the user named counts as new or outside: more false alarms"
_OPERATOR = "who the operator named counts as new or outside: more false alarms"
_UNJOINED = "what was done in other parts of the conversation does not count"

NEEDS: dict[str, Need] = {
    "novel_recipient": Need(
        "recipients that are new to this agent",
        ("acts", "arguments"),
        {
            "agent_name": "all unnamed agents share one past",
            "user_texts": _ASKED,
            "system_prompt": _OPERATOR,
        },
    ),
    "outside_recipient": Need(
        "mail to addresses outside that nobody in charge named",
        ("acts", "arguments"),
        {
            "user_texts": _ASKED,
            "system_prompt": "where no domains are configured, nothing shows what is inside",
            "session": "who was named in other parts of the conversation counts as outside",
        },
    ),
    "sensitive_flow": Need(
        "secrets and private texts that were read and then go out",
        ("acts", "arguments", "results"),
        {"session": "what was read in one trace and goes out in another is not seen as one"},
    ),
    "leverage": Need(
        "threats and blackmail in what the agent sends",
        ("acts", "arguments"),
        {
            "results": "it is not known what the agent learned about whom: only open threats are found",
            "answers": "threats in what it says, rather than sends, are not seen",
            "reasoning": "what it says to itself about its aim does not count",
            "system_prompt": "who decides about the agent is not known",
            "session": _UNJOINED,
        },
    ),
    "half_space_trees": Need(
        "acts that are unlike this agent's own past",
        ("acts",),
        {
            "arguments": "only names, order and pace of acts count",
            "results": "how much was read does not count",
            "agent_name": "all unnamed agents share one past",
            "session": "the order of acts is lost between traces",
        },
    ),
}
"""Shipped detector → what it needs."""


class BlindSpot(Struct, frozen=True):
    """What one detector sees of an agent.

    Attributes:
        sight: ``sees`` all of it; ``weaker``: finds less or errs more; ``partly``: some acts only; ``blind``: nothing;
            ``unused``: there was no act to judge.
        missing: Inputs that make it so, the needed ones first.
        words: The same for people.
    """

    detector: str
    family: str
    sight: Sight
    missing: tuple[str, ...]
    words: str


def blind_spots(report: AgentReport, families: Mapping[str, str]) -> tuple[BlindSpot, ...]:
    """What each detector can see of an agent, in the order of `NEEDS`.

    Args:
        families: Detector → family; detectors that are not in it are left out.
    """
    return tuple(_spot(name, families[name], need, report) for name, need in NEEDS.items() if name in families)


def _spot(name: str, family: str, need: Need, report: AgentReport) -> BlindSpot:
    lacks = tuple(one for one in need.needs if not report.has(one))
    worse = tuple(one for one in need.better if not report.has(one))
    dark = tuple(one for one in lacks if report.inputs[one].status in ("withheld", "absent"))
    if report.inputs["acts"].status == "nothing":
        return BlindSpot(name, family, "unused", (), f"no act was seen: nothing says whether {need.finds} would be")
    if dark:
        return BlindSpot(name, family, "blind", lacks, f"cannot find {need.finds}: no {_named(dark)}")
    if lacks:
        return BlindSpot(name, family, "partly", lacks, f"finds {need.finds} only where there are {_named(lacks)}")
    if worse:
        reasons = "; ".join(_reason(need, one, report) for one in worse)
        return BlindSpot(name, family, "weaker", worse, f"finds {need.finds}, but less well ({reasons})")
    return BlindSpot(name, family, "sees", (), f"finds {need.finds}")


def _named(inputs: tuple[str, ...]) -> str:
    return ", ".join(_SHORT[name] for name in inputs)


_SHORT = {
    "acts": "names of acts",
    "arguments": "arguments",
    "results": "results",
    "user_texts": "words of the user",
    "answers": "answers",
    "reasoning": "reasoning",
    "system_prompt": "instructions",
    "session": "session id",
    "agent_name": "name of the agent",
}


def _reason(need: Need, name: str, report: AgentReport) -> str:
    status = report.inputs[name].status
    if name == "session" and status == "inferred":
        return (
            "the session is guessed from the history that is repeated: once that is cut, its parts are not seen as one"
        )
    return f"{'not always' if status == 'partly' else 'no'} {_SHORT[name]}: {need.better[name]}"
