"""An allow-list from what agents were seen to use, in the words of the sidecar's own configuration.

Only what tightens, or names what is known already, is suggested: no tool is called reversible here, no public mail
provider becomes a partner, and nothing that was flagged, that nobody asked for, or that could not be judged, is in it.
What is left out stands in a comment with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from pydantic import ValidationError

from sidecar.config import Config, OrganisationSettings
from sidecar.core.exposure import AgentExposure, PlaceUse, ToolUse
from sidecar.core.organisation import PERSONAL_MAIL, is_local
from sidecar.core.tools.settings import ToolSettings
from sidecar.yaml import parse, validated

_STATED = ("reads", "sends", "changes", "runs", "standing", "outward")
_HEAD = """\
# What {roles} used in {source}: a beginning, to be read by a person before it is used.
# An override states what a tool was seen to do and makes it a known one; it never makes an act reversible.
# `closed` denies tools that neither this list nor the built-in catalogue knows. What the catalogue knows (see
# `sidecar tools NAME`) stays allowed though it is left out here, and is judged by its content as before.
"""


def allow_list(chosen: Iterable[AgentExposure], heard: Iterable[AgentExposure], source: str) -> str:
    """The YAML; it is read back before it is returned.

    Args:
        chosen: The agents it is for.
        heard: All agents of the recording: what was flagged at one of them is suggested for none.

    Raises:
        ConfigError: It would not be taken, which is a fault of ours.
    """
    chosen, heard = list(chosen), list(heard)
    flagged_tools = {use.name: use.flagged for agent in heard for use in agent.tools if use.flagged}
    flagged_domains = {_domain(use): use.flagged for agent in heard for use in agent.places if use.flagged}
    roles = ", ".join(dict.fromkeys(agent.role for agent in chosen))
    lines = _HEAD.format(roles=_quoted(roles), source=_quoted(source)).splitlines()
    lines += _tools(chosen, flagged_tools)
    lines += _organisation(chosen, flagged_domains)
    text = "\n".join(lines) + "\n"
    validated(Config, parse(text, "the suggestion"), "the suggestion")
    return text


def _tools(agents: list[AgentExposure], flagged: dict[str, str]) -> list[str]:
    uses: dict[str, ToolUse] = {}
    for agent in agents:
        for use in agent.tools:
            if use.name in uses:
                uses[use.name].join(use)
            else:
                uses[use.name] = ToolUse(**{name: getattr(use, name) for name in use.__struct_fields__})
    taken, left = [], []
    for name, use in sorted(uses.items()):
        seen = f"{_times(use.calls, 'call')}, {use.span or 'no span'}"
        if reason := _objection(use, flagged):
            left.append(f"  # not suggested: {_quoted(name)}: {reason} ({seen})")
            continue
        if not use.known:
            # To be known must not make it judged more mildly than a tool that nobody knows.
            use.sends = use.changes = use.irreversible = True
            seen += "; the catalogue does not know it, so it is taken to send and to change: say what it does"
        said = [f"{word}: true" for word in _STATED if getattr(use, word)]
        said += ["reversible: false"] if use.irreversible else []
        if not said:
            left.append(f"  # not suggested: {_quoted(name)}: it was seen to do nothing that counts ({seen})")
            continue
        taken.append(f"    {json.dumps(name)}: {{{', '.join(said)}}}  # {seen}")
    never = sorted({name for agent in agents for name in agent.never_used})
    left += [f"  # granted and never used: {_quoted(name)}" for name in never if name not in uses]
    return ["tools:", "  closed: true", *(["  overrides:", *taken] if taken else []), *left]


def _objection(use: ToolUse, flagged: dict[str, str]) -> str:
    if use.name in flagged:
        return f"flagged by {flagged[use.name]}"
    if use.odd or any(sign in use.name for sign in "*?"):
        return "its name is no plain name"
    if use.unscored == use.calls:
        return "none of its calls could be judged"
    try:
        ToolSettings.model_validate({"overrides": {use.name: {"reversible": False}}})
    except ValidationError:
        return "its name is no plain name"
    return ""


def _organisation(agents: list[AgentExposure], flagged: dict[str, str]) -> list[str]:
    found: dict[str, PlaceUse] = {}
    for agent in agents:
        for use in agent.places:
            domain = _domain(use)
            if domain in found:
                found[domain].join(use)
            else:
                found[domain] = PlaceUse(**{name: getattr(use, name) for name in use.__struct_fields__})
    own: list[str] = []
    partners: list[str] = []
    left: list[str] = []
    for domain, use in sorted(found.items()):
        seen = f"{_times(use.acts, 'act')}, {use.span or 'no span'}"
        reason = _distrust(domain, use, flagged)
        if reason:
            left.append(f"  # not suggested: {_quoted(domain)}: {reason} ({seen})")
        else:
            (own if use.relation == "inside" else partners).append(f"    - {domain}  # {seen}")
    if not (own or partners):
        return [*(["# organisation: nothing to suggest", *(line.strip() for line in left)] if left else [])]
    return [
        "organisation:",
        *(["  domains:", *own] if own else []),
        *(["  partners:", *partners] if partners else []),
        *left,
    ]


def _distrust(domain: str, use: PlaceUse, flagged: dict[str, str]) -> str:
    if domain in flagged:
        return f"flagged by {flagged[domain]}"
    if not use.domain:
        return f"no setting names a {use.kind}" if not is_local(use.address) else "a local address is inside anyway"
    if domain in PERSONAL_MAIL:
        return "anybody can have a mailbox there"
    if use.relation == "inside":
        return "" if _is_domain(domain) else "no domain"
    if use.asked < use.acts:
        return f"neither a user nor the instructions had named it in {_times(use.acts - use.asked, 'act')}"
    return "" if _is_domain(domain) else "no domain"


def _is_domain(domain: str) -> bool:
    try:
        OrganisationSettings(partners=(domain,))
    except ValidationError:
        return False
    # What YAML would read as something else than text is left to a person.
    return isinstance(parse(domain), str)


def _domain(use: PlaceUse) -> str:
    return use.domain or use.address


def _times(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _quoted(text: str) -> str:
    """Text of an agent in a comment: one line of plain ASCII, whatever it holds."""
    return json.dumps(text[:200])[1:-1]
