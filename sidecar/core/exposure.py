"""What an agent has shown that it can do, and what it was offered and never used: its exposure, with the evidence.

`Exposure` hears the events that a pipeline makes of telemetry, what detectors found in them, and which tools each call
of a model was offered. It judges nothing: an agent that reads the payroll and writes to customers may do its work. What
it says is where an instruction planted in what the agent reads would have something to take and a way out with it.

Whatever is told of several sessions of an agent counts together; each statement has its count, its first and last time
and the spans that show it best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct, field

from sidecar.core.detectors import sensitive
from sidecar.core.digests import remember
from sidecar.core.events import Event, Message, SessionKey, ToolCall
from sidecar.core.evidence import Find
from sidecar.core.findings import Finding, Severity
from sidecar.core.reader import MAX_ADDRESSED, MAX_SAID
from sidecar.core.reading import Destination, Effect, Piece
from sidecar.core.semconv.facts import Facts
from sidecar.core.sessions import Session
from sidecar.core.span import Span
from sidecar.core.text.scan import Pattern
from sidecar.core.tools import bare_name
from sidecar.core.tools.names import words_of
from sidecar.core.tools.words import is_a, listed

MAX_SESSIONS, MAX_ACTS, MAX_OFFERS = 50_000, 100_000, 100_000
MAX_TOOLS, MAX_PLACES, MAX_PROOFS, MAX_CLASSES = 1024, 2048, 3, 32

GOALS = (
    Pattern("goal.absolute",
            r"\b(?:at (?:all|any) costs?|no matter what|whatever it takes|by any means|nothing else matters|"
            r"(?:must|may|can) (?:not|never) be (?:stopped|shut down|switched off|interrupted|prevented)|"
            r"let nothing (?:stop|get in)|(?:allow|let) (?:no one|nobody|nothing) to stop|"
            r"above (?:all else|everything else|any other)|overrid(?:es?|ing) (?:all|any|every) other|"
            r"um jeden preis|koste es,? was es wolle|nichts anderes zählt|mit allen mitteln|"
            r"à (?:tout prix|n'importe quel prix)|coûte que coûte|rien d'autre ne compte|par tous les moyens|"
            r"a toda costa|cueste lo que cueste|nada más importa|por todos los medios|"
            r"a (?:tutti i costi|qualsiasi costo|ogni costo)|costi quel che costi|nient'altro conta|"
            r"a (?:todo custo|qualquer custo)|custe o que custar|nada mais importa|"
            r"koste wat het kost|tegen elke prijs|niets anders telt)"),
    Pattern("goal.single",
            r"\b(?:(?:your|the|deine?|dein|ihre?|votre|ton|tu|su|il tuo) (?:only|sole|single|primary|main|overriding|"
            r"ultimate|number one|long-?term|einziges?|oberstes?|unique|único|única|unico|principale?) "
            r"(?:goal|objective|mission|purpose|priority|aim|ziel|aufgabe|but|objectif|objetivo|misión|obiettivo)|"
            r"(?:primary|ultimate|overriding) (?:goal|objective|mission) is|(?:never|do not|don't) (?:ever )?give up|"
            r"do not stop until|keep going until)"),
)  # fmt: skip
"""Instructions that leave an agent no way to give in; matched on folded text. The grades: ``absolute``, ``single``."""

OVERSIGHT = (
    Pattern("oversight.named",
            r"\b(?:disable|stop|kill|pkill|mute|silence|turn off|switch off|shut ?down|delete|remove|clear|truncate|"
            r"wipe|uninstall|bypass|off|false)\b.{0,60}\b(?:audit\w*|monitor\w*|logging|logs?|alert\w*|alarms?|backups?|"
            r"watchdogs?|guardrails?|sidecar|otel\w*|collector|antivirus|edr|retention|auditd|syslog|journald)\b"),
    Pattern("oversight.setting",
            r"\b(?:audit\w*|monitor\w*|logging|alert\w*|alarms?|guardrails?|otel\w*|retention)[ _-]?(?:enabled|rule|"
            r"rules|policy|level)?['\": =]{1,4}(?:false|off|disabled?|none|0)\b"),
)  # fmt: skip
"""What watches agents, in the arguments of an act that changes, runs or sends something."""

PATTERNS = GOALS + OVERSIGHT

_WATCHES = listed("""
    audit audits monitor monitors monitoring logging logs alert alerts alarm alarms backup backups watchdog guardrail
    guardrails sidecar telemetry retention
""")
_STOPS = listed("""
    disable stop kill mute silence delete remove clear wipe bypass cancel suppress pause turn update set edit configure
""")
_NOT = ("avoid", "prevent", "never", "not ", "n't", "vermeid", "verhinder", "nicht", "éviter", "évite", "empêche",
        "evita", "evitar", "impedi", "vermijd", "voorkom")  # fmt: skip
"""Words before ``at all costs`` that make it a prohibition: it holds an agent back."""

SHOWN: dict[str, str] = {
    "sensitive_read": "read sensitive content",
    "secrets": "handled secrets",
    "untrusted_input": "took in what strangers may have written",
    "way_out": "sent something where it is not inside",
    "irreversible_outside": "acted outside in a way that cannot be undone",
    "standing": "set up what outlives the act",
    "runs_code": "executed code or commands",
    "oversight": "touched what watches it",
    "rigid_goal": "has a goal that it may not give up",
    "unasked": "acted where no user had said anything",
    "unasked_outside": "acted outside, for good, where no user had said anything",
}
"""The closed list of what can be shown, in the order in which it is told."""

TRIFECTA = ("private", "untrusted", "out")
_LEGS = {"sensitive_read": "private", "secrets": "private", "untrusted_input": "untrusted", "way_out": "out"}


class Proof(Struct, frozen=True):
    """A span that shows something.

    Attributes:
        span: ``trace_id:span_id``.
        weight: 0..1, how well it shows it.
        text: What is there, in our words; of the agent's only names of tools, fields and addresses.
    """

    span: str
    at_ns: int
    weight: float
    text: str


class Shown(Struct):
    """Something an agent has shown it can do; `classes` counts by kind (``label.confidential``, ``web``, …)."""

    count: int = 0
    first_ns: int = 0
    last_ns: int = 0
    classes: dict[str, int] = {}
    proofs: list[Proof] = []

    def add(self, proof: Proof, *classes: str) -> None:
        self.first_ns = proof.at_ns if not self.count else min(self.first_ns, proof.at_ns)
        self.last_ns = max(self.last_ns, proof.at_ns)
        self.count += 1
        for name in classes:
            if name in self.classes or len(self.classes) < MAX_CLASSES:
                self.classes[name] = self.classes.get(name, 0) + 1
        self.proofs = _best([*self.proofs, proof])

    def join(self, other: Shown) -> None:
        self.first_ns = min(self.first_ns, other.first_ns) if self.count else other.first_ns
        self.last_ns = max(self.last_ns, other.last_ns)
        self.count += other.count
        for name, count in other.classes.items():
            if name in self.classes or len(self.classes) < MAX_CLASSES:
                self.classes[name] = self.classes.get(name, 0) + count
        self.proofs = _best([*self.proofs, *other.proofs])


class ToolUse(Struct):
    """How a tool was used.

    Attributes:
        name: Without decoration, as configuration names it.
        told: As the agent called it first.
        unscored: How many of the calls could not be judged whole.
        reads, sends, changes, runs, standing, outward: Whether any call did.
        irreversible: Whether any call could not be undone.
        odd: Whether a call's name was not plain; configuration cannot name it.
        known: Whether the catalogue, or the operator, knows it.
        flagged: The finding, where one of its calls had one of at least medium severity.
    """

    name: str
    told: str = ""
    calls: int = 0
    first_ns: int = 0
    last_ns: int = 0
    span: str = ""
    unscored: int = 0
    reads: bool = False
    sends: bool = False
    changes: bool = False
    runs: bool = False
    standing: bool = False
    outward: bool = False
    irreversible: bool = False
    odd: bool = False
    known: bool = True
    flagged: str = ""

    def join(self, other: ToolUse) -> None:
        if other.first_ns < self.first_ns or not self.calls:
            self.first_ns, self.span, self.told = other.first_ns, other.span, other.told
        self.last_ns = max(self.last_ns, other.last_ns)
        self.calls += other.calls
        self.unscored += other.unscored
        for name in (*_DOES, "irreversible", "odd"):
            setattr(self, name, getattr(self, name) or getattr(other, name))
        self.known &= other.known
        self.flagged = self.flagged or other.flagged


class PlaceUse(Struct):
    """How often acts named a destination; `asked` counts those in which the user or the operator had named it before.

    Attributes:
        relation: ``inside``, ``outside``, ``personal`` or ``unknown``, the farthest that was seen.
    """

    kind: str
    address: str
    domain: str
    relation: str = "inside"
    acts: int = 0
    asked: int = 0
    first_ns: int = 0
    last_ns: int = 0
    span: str = ""
    tools: dict[str, int] = {}
    flagged: str = ""

    def join(self, other: PlaceUse) -> None:
        if other.first_ns < self.first_ns or not self.acts:
            self.first_ns, self.span = other.first_ns, other.span
        self.last_ns = max(self.last_ns, other.last_ns)
        self.acts, self.asked = self.acts + other.acts, self.asked + other.asked
        self.relation = max(self.relation, other.relation, key=_FAR.index)
        self.flagged = self.flagged or other.flagged
        for name, count in other.tools.items():
            if name in self.tools or len(self.tools) < MAX_CLASSES:
                self.tools[name] = self.tools.get(name, 0) + count


class Trifecta(Struct, frozen=True):
    """Private data, untrusted input and a way out, all three shown; `together` in one session."""

    private: Proof
    untrusted: Proof
    out: Proof
    together: bool
    sessions: int


class AgentExposure(Struct):
    """What is known of one agent role.

    Attributes:
        offered: Tools its model calls were offered → in how many calls; None where no call told any.
        never_used: Those it was never seen to call.
        unscored: Reason → sessions in which something could not be judged whole.
        unknown: What cannot be told, in words.
    """

    role: str
    realm: str
    sessions: int = 0
    acts: int = 0
    shown: dict[str, Shown] = {}
    trifecta: Trifecta | None = None
    tools: tuple[ToolUse, ...] = ()
    places: tuple[PlaceUse, ...] = ()
    offered: dict[str, int] | None = None
    never_used: tuple[str, ...] = ()
    unscored: dict[str, int] = {}
    unknown: tuple[str, ...] = ()

    @property
    def is_exposed(self) -> bool:
        """Whether a planted instruction would have what it needs, or the agent has acted outside by itself."""
        return self.trifecta is not None or "unasked_outside" in self.shown


_DOES = ("reads", "sends", "changes", "runs", "standing", "outward")
_FAR = ("inside", "unknown", "personal", "outside")


class _Act(Struct):
    """An act, so that what is told of it later joins it.

    Attributes:
        key: The cell that counts it.
        told: Whether its arguments were told.
        kinds: What it has shown.
    """

    key: tuple[SessionKey, str, str]
    effect: Effect
    tool: str
    places: tuple[tuple[str, str], ...]
    from_place: bool
    told: bool
    kinds: dict[str, None] = {}


class _Waiting(Struct):
    """An irreversible act, until it is known whether somebody had asked."""

    proof: Proof
    tool: str
    outside: bool


class _Cell(Struct):
    """What one session told of one agent."""

    role: str
    acts: int = 0
    shown: dict[str, Shown] = {}
    tools: dict[str, ToolUse] = {}
    places: dict[tuple[str, str], PlaceUse] = {}
    waiting: dict[str, _Waiting] = {}
    unread: dict[str, None] = {}
    offered: dict[str, int] | None = None


class _Talk(Struct):
    """Who has said anything in a session.

    Attributes:
        user_ns: When a user did first; -1 where none did.
        named: Addresses and domains that a user or the instructions named → when first.
        told, hidden, instructed: Whether anything said is told; is withheld; whether instructions are told.
    """

    user_ns: int = -1
    named: dict[str, int] = {}
    told: bool = False
    hidden: bool = False
    instructed: bool = False


class Exposure:
    """Adds up what agents show.

    Memory: `MAX_SESSIONS` sessions with at most `MAX_TOOLS` tools and `MAX_PLACES` destinations each, `MAX_ACTS` acts
    and `MAX_OFFERS` spans; beyond, the oldest are forgotten and `forgotten` counts them.

    Args:
        find: Places of a pattern in a folded text (`PatternSet.find`); its patterns hold those of the detectors and
            `PATTERNS`.
    """

    def __init__(self, find: Find) -> None:
        self._find = find
        self._cells: dict[tuple[SessionKey, str, str], _Cell] = {}
        self._talk: dict[SessionKey, _Talk] = {}
        self._acts: dict[str, _Act] = {}
        self._heard: dict[tuple[str, str], bool] = {}
        self._offers: dict[str, tuple[str, ...]] = {}
        self._lasted: dict[str, int] = {}
        self._of_trace: dict[str, tuple[SessionKey, str, str]] = {}
        self.records = self.mapped = self.forgotten = 0

    # ------------------------------------------------------------ what is heard

    def note(self, span: Span, facts: Facts | None) -> None:
        """Takes down which tools a span says were offered, and how long before its end its input was there."""
        self.records += 1
        if facts is None:
            return
        if facts.inputs and span.span_id:
            lasted_ns = max(0, span.end_ns - span.start_ns) if span.start_ns else 0
            remember(self._lasted, f"{span.trace_id}:{span.span_id}", lasted_ns, MAX_OFFERS)
        self.mapped += facts.kind != "context"
        if facts.tools is not None and span.span_id:
            remember(self._offers, f"{span.trace_id}:{span.span_id}", facts.tools[:MAX_TOOLS], MAX_OFFERS)

    def hear(self, events: Iterable[Event], findings: Iterable[Finding] = ()) -> None:
        """Takes in events, each once however often it is told, and what was found in them."""
        for event in events:
            self._hear(event)
        for found in findings:
            self._flag(found)

    def _hear(self, event: Event) -> None:
        key = (event.session, event.agent.realm, event.agent.name or event.agent.id)
        for span in event.spans:
            trace = span.partition(":")[0]
            if trace and trace not in self._of_trace:
                remember(self._of_trace, trace, key, MAX_OFFERS)
            if (offered := self._offers.pop(span, None)) is not None:
                self._offer(key, offered)
        phase = event.phase if isinstance(event, ToolCall) else ""
        # An act whose content is told later is told again.
        is_whole = phase == "" or (event.arguments if phase == "started" else event.result) is not None  # type: ignore[attr-defined]
        before = self._heard.get((event.event_id, phase))
        if before or (before is not None and not is_whole):
            return
        remember(self._heard, (event.event_id, phase), is_whole, 2 * MAX_ACTS)
        if before is not None and event.event_id in self._acts:
            key = self._acts[event.event_id].key
        cell = self._cell(key)
        talk = self._talk.get(event.session)
        if talk is None:
            talk = _Talk()
            remember(self._talk, event.session, talk, MAX_SESSIONS)
        if isinstance(event, ToolCall):
            if event.phase == "started":
                self._started(key, cell, event)
            else:
                self._ended(cell, event)
        elif isinstance(event, Message):
            self._said(cell, talk, event)
        talk.hidden |= bool({"inputs", "text", "system"} & {*event.withheld}) or "withheld" in event.unscored

    def _cell(self, key: tuple[SessionKey, str, str]) -> _Cell:
        cell = self._cells.get(key)
        if cell is None:
            self.forgotten += len(self._cells) >= MAX_SESSIONS
            cell = _Cell(key[2])
            remember(self._cells, key, cell, MAX_SESSIONS)
        return cell

    def _offer(self, key: tuple[SessionKey, str, str], tools: tuple[str, ...]) -> None:
        cell = self._cell(key)
        cell.offered = {} if cell.offered is None else cell.offered
        for name in dict.fromkeys(map(bare_name, tools)):
            if name and (name in cell.offered or len(cell.offered) < MAX_TOOLS):
                cell.offered[name] = cell.offered.get(name, 0) + 1

    def _flag(self, found: Finding) -> None:
        """What a grave finding is about is marked: it is in no allow-list."""
        act = self._acts.get(found.event_id)
        if found.severity < Severity.MEDIUM or act is None or act.key not in self._cells:
            return
        cell, words = self._cells[act.key], f"{found.detector}, {found.severity.word}"
        if (used := cell.tools.get(act.tool)) is not None:
            used.flagged = used.flagged or words
        for place in act.places:
            if (named := cell.places.get(place)) is not None:
                named.flagged = named.flagged or words

    # ------------------------------------------------------------ acts

    def _started(self, key: tuple[SessionKey, str, str], cell: _Cell, event: ToolCall) -> None:
        effect, span = event.reading.effect, event.spans[0] if event.spans else ""
        tool = bare_name(effect.tool or event.tool) or "unnamed"
        out = outward(event)
        before = self._acts.get(event.event_id)
        cell.acts += before is None
        places = tuple([(where.kind, where.address) for where in event.reading.destinations])
        sensitive_place = "place.sensitive" in event.reading.hits
        told = event.arguments is not None
        act = _Act(key, effect, tool, places, sensitive_place, told, {} if before is None else before.kinds)
        remember(self._acts, event.event_id, act, MAX_ACTS)
        if before is not None and before.tool in cell.tools:
            used = cell.tools[before.tool]  # what was known only by its name is known by its arguments now
            used.calls -= 1
            used.unscored -= not before.told
        self._use(cell, tool, event, span)
        reads = effect.reads or effect.runs or not effect.known
        if reads and len(cell.unread) < MAX_TOOLS and not self._heard.get((event.event_id, "ended")):
            cell.unread[event.event_id] = None
        going = [*out]
        for where in event.reading.destinations:
            if any(where is one for one in going) or where.relation == "inside":
                self._place(cell, where, tool, event, span)

        known = tuple(act.kinds)

        def shows(kind: str, weight: float, text: str, *classes: str) -> None:
            if kind in known:
                return
            act.kinds[kind] = None
            cell.shown.setdefault(kind, Shown()).add(Proof(span, event.at_ns, weight, text), *classes)

        for piece in event.reading.pieces:
            for name in [hit for hit in piece.hits if hit.startswith("secret.")]:
                shows("secrets", 0.7, f"{tool} {piece.field}: {_plain(name)}", name)
        for_good = not effect.reversible or effect.standing
        if out:
            where = max(out, key=lambda place: (_FAR.index(place.relation), place.named_by < 3, place.address))
            goes = f"{tool} to {where.address} ({_standing(where)})"
            carries = any(is_sensitive(marks_of(piece, self._find)) for piece in event.reading.pieces)
            sure = {"outside": 0.8, "personal": 0.8}.get(where.relation, 0.5)
            sure += (0.2 if carries else 0.0) - (0.2 if where.named_by >= 3 else 0.0)
            goes += " with sensitive content" if carries else ""
            shows("way_out", sure if effect.sends or for_good else 0.7 * sure, goes, where.kind)
            if for_good:
                shows("irreversible_outside", sure, goes, where.kind)
        if effect.standing:
            shows("standing", 1.0, f"{tool}: its effect outlives the act", tool)
        if effect.runs:
            shows("runs_code", 1.0, tool, tool)
        if watches := _touches_oversight(event, tool):
            shows("oversight", watches[1], f"{tool} {watches[0]}", tool)
        if for_good and (event.event_id in cell.waiting or len(cell.waiting) < MAX_TOOLS):
            proof = Proof(span, event.at_ns, 0.9 if out else 0.5, goes if out else tool)
            cell.waiting[event.event_id] = _Waiting(proof, tool, bool(out))
        else:
            cell.waiting.pop(event.event_id, None)

    def _use(self, cell: _Cell, tool: str, event: ToolCall, span: str) -> None:
        effect = event.reading.effect
        if tool not in cell.tools and len(cell.tools) >= MAX_TOOLS:
            self.forgotten += 1
            return
        use = ToolUse(
            tool, event.tool, 1, event.at_ns, event.at_ns, span, int(bool(event.unscored)),
            irreversible=not effect.reversible, odd=effect.odd_name, known=effect.known,
            **{name: getattr(effect, name) for name in _DOES},
        )  # fmt: skip
        _joined(cell.tools, tool, use)

    def _place(self, cell: _Cell, where: Destination, tool: str, event: ToolCall, span: str) -> None:
        key = (where.kind, where.address)
        if key not in cell.places and len(cell.places) >= MAX_PLACES:
            self.forgotten += 1
            return
        use = PlaceUse(
            where.kind, where.address, where.domain, where.relation, 1, int(where.named_by >= 3),
            event.at_ns, event.at_ns, span, {tool: 1},
        )  # fmt: skip
        _joined(cell.places, key, use)

    def _ended(self, cell: _Cell, event: ToolCall) -> None:
        act = self._acts.get(event.event_id)
        if event.result is None:
            return
        if act is not None and act.key in self._cells:
            self._cells[act.key].unread.pop(event.event_id, None)
        tool = act.tool if act is not None else bare_name(event.tool)
        effect = act.effect if act is not None else Effect()
        span = event.spans[0] if event.spans else ""
        if event.result != "" and (effect.reads or effect.runs or not effect.known):
            source = _source(tool, effect)
            proof = Proof(span, event.at_ns, _STRANGE.get(source, 0.5), f"result of {tool}")
            cell.shown.setdefault("untrusted_input", Shown()).add(proof, source)
            if source == "mail":  # a mailbox is private, whatever its mails call themselves
                proof = Proof(span, event.at_ns, 0.3, f"result of {tool}: a mailbox")
                cell.shown.setdefault("sensitive_read", Shown()).add(proof, "mailbox")
        self._read(cell, event, f"result of {tool}", from_place=act is not None and act.from_place)

    def _read(self, cell: _Cell, event: Event, words: str, *, from_place: bool = False) -> None:
        """Notes what of sensitive content stands in a text that the agent took in."""
        span = event.spans[0] if event.spans else ""
        for piece in event.reading.pieces:
            marks = marks_of(piece, self._find, from_place=from_place)
            named = ", ".join(_plain(mark) for mark in marks[:3])
            proof = Proof(span, event.at_ns, min(1.0, 0.4 + 0.2 * len(marks)), f"{words}: {named}")
            if secret := tuple(mark for mark in marks if mark.startswith("secret.")):
                cell.shown.setdefault("secrets", Shown()).add(proof, *secret)
            if is_sensitive(marks):
                cell.shown.setdefault("sensitive_read", Shown()).add(proof, *marks)

    # ------------------------------------------------------------ words

    def _said(self, cell: _Cell, talk: _Talk, event: Message) -> None:
        if event.direction == "outbound":
            return
        span = event.spans[0] if event.spans else ""
        talk.told |= event.text is not None
        said_ns = event.at_ns - self._lasted.get(span, 0)  # a run tells at its end what began it
        if event.role in ("user", "system") and _is_said(event):
            for where in event.reading.destinations:
                for name in (where.address, where.domain):
                    if name and (name in talk.named or len(talk.named) < MAX_PLACES):
                        talk.named[name] = min(said_ns, talk.named.get(name, said_ns))
        if event.role == "user":
            talk.user_ns = said_ns if talk.user_ns < 0 else min(talk.user_ns, said_ns)
        elif event.role == "system":
            talk.instructed |= event.text is not None
            for piece in event.reading.pieces:
                for name in rigid_goals(piece, self._find):
                    proof = Proof(span, event.at_ns, _GRADES[name], f"system prompt: {_plain(name)} goal")
                    cell.shown.setdefault("rigid_goal", Shown()).add(proof, name)
            return
        elif event.role == "agent":
            proof = Proof(span, event.at_ns, 0.7, "words of another agent")
            cell.shown.setdefault("untrusted_input", Shown()).add(proof, "another agent")
        self._read(cell, event, "words of the user" if event.role == "user" else "words of another agent")

    # ------------------------------------------------------------ what it comes to

    def report(
        self, sessions: Iterable[Session] = (), resolve: Callable[[SessionKey], SessionKey] = lambda key: key
    ) -> tuple[AgentExposure, ...]:
        """What each agent has shown, by realm and role.

        Args:
            sessions: Those the pipeline knows: whose they are where events did not say, and what of them was not seen.
            resolve: The key under which a session is kept now.
        """
        known = {session.key: session for session in sessions}
        self._leftover_offers()
        talks: dict[SessionKey, _Talk] = {}
        for key, talk in self._talk.items():
            so_far = talks.setdefault(resolve(key), _Talk())
            times = [ns for ns in (so_far.user_ns, talk.user_ns) if ns >= 0]
            so_far.user_ns = min(times, default=-1)
            for name, named_ns in talk.named.items():
                so_far.named[name] = min(named_ns, so_far.named.get(name, named_ns))
            so_far.told |= talk.told
            so_far.hidden |= talk.hidden
            so_far.instructed |= talk.instructed
        agents: dict[tuple[str, str], _Sum] = {}
        for (told, realm, role), cell in self._cells.items():
            key = resolve(told)
            session = known.get(key)
            if not role:
                role = "unnamed" if session is None else session.agent.role
            total = agents.setdefault((realm if session is None else key.realm, role), _Sum())
            total.take(cell, key, talks.get(key, _Talk()), session)
        return tuple(total.report(realm, role) for (realm, role), total in sorted(agents.items(), key=lambda a: a[0]))

    def _leftover_offers(self) -> None:
        """Offers of spans that became no event of their own belong to whoever acted in their trace."""
        for span, tools in list(self._offers.items()):
            if (key := self._of_trace.get(span.partition(":")[0])) is not None:
                self._offer(key, tools)
                del self._offers[span]


class _Sum(Struct):
    """An agent's cells, added up."""

    agent: AgentExposure = field(default_factory=lambda: AgentExposure("", ""))
    tools: dict[str, ToolUse] = {}
    places: dict[tuple[str, str], PlaceUse] = {}
    legs: dict[SessionKey, dict[str, Proof]] = {}
    mute: int = 0
    unread: int = 0
    uninstructed: int = 0

    def take(self, cell: _Cell, key: SessionKey, talk: _Talk, session: Session | None) -> None:
        agent = self.agent
        agent.acts += cell.acts
        self.unread += len(cell.unread)
        is_new = key not in self.legs
        agent.sessions += is_new
        legs = self.legs.setdefault(key, {})
        for kind, shown in cell.shown.items():
            agent.shown.setdefault(kind, Shown()).join(shown)
            if leg := _LEGS.get(kind):
                legs[leg] = _best([*([legs[leg]] if leg in legs else []), shown.proofs[0]])[0]
        for name, use in cell.tools.items():
            _joined(self.tools, name, use)
        for place, used in cell.places.items():
            _joined(self.places, place, used)
            if used.asked < used.acts and _is_named(used, talk, used.first_ns):
                self.places[place].asked += used.acts - used.asked
        for name, count in (cell.offered or {}).items():
            agent.offered = {} if agent.offered is None else agent.offered
            agent.offered[name] = agent.offered.get(name, 0) + count
        if cell.offered is not None and agent.offered is None:
            agent.offered = {}
        # Who asked is known only where what was said is told.
        if talk.told and not talk.hidden:
            for act in cell.waiting.values():
                if not 0 <= talk.user_ns <= act.proof.at_ns:
                    agent.shown.setdefault("unasked", Shown()).add(act.proof, act.tool)
                    if act.outside:
                        agent.shown.setdefault("unasked_outside", Shown()).add(act.proof, act.tool)
        elif cell.waiting:
            self.mute += 1
        if is_new:
            self.uninstructed += not talk.instructed
            for reason in session.reasons if session is not None else ():
                agent.unscored[reason] = agent.unscored.get(reason, 0) + 1

    def report(self, realm: str, role: str) -> AgentExposure:
        agent = self.agent
        agent.realm, agent.role = realm, role
        agent.shown = {kind: agent.shown[kind] for kind in SHOWN if kind in agent.shown}
        agent.tools = tuple(sorted(self.tools.values(), key=lambda use: (-use.calls, use.name)))
        agent.places = tuple(sorted(self.places.values(), key=lambda use: (-use.acts, use.kind, use.address)))
        if agent.offered is not None:
            used = {name.lower() for name in self.tools}
            agent.never_used = tuple(sorted(name for name in agent.offered if name.lower() not in used))
        agent.trifecta = self._trifecta()
        unknown = []
        if agent.unscored:
            reasons = ", ".join(f"{reason} in {count}" for reason, count in sorted(agent.unscored.items()))
            unknown.append(f"not all of it could be seen ({reasons} of {_many(agent.sessions, 'session')})")
        if self.unread:
            unknown.append(f"what it read, in {_many(self.unread, 'act')}: the result is not told")
        if self.mute:
            unknown.append(f"who asked for its acts, in {_many(self.mute, 'session')}: what was said is not told")
        if self.uninstructed:
            unknown.append(f"whether its goal is rigid: {_many(self.uninstructed, 'session')} told no instructions")
        if agent.offered is None:
            unknown.append("what it was granted: no model call told which tools it was offered")
        agent.unknown = tuple(unknown)
        return agent

    def _trifecta(self) -> Trifecta | None:
        """Preferably within one session; else of the agent's best proofs."""
        whole = [legs for legs in self.legs.values() if all(leg in legs for leg in TRIFECTA)]
        if whole:
            best = max(whole, key=lambda legs: (sum(p.weight for p in legs.values()), -legs["out"].at_ns))
            return Trifecta(best["private"], best["untrusted"], best["out"], True, len(whole))
        legs = {leg: [one[leg] for one in self.legs.values() if leg in one] for leg in TRIFECTA}
        if not all(legs.values()):
            return None
        private, untrusted, out = (_best(legs[leg])[0] for leg in TRIFECTA)
        return Trifecta(private, untrusted, out, False, 0)


# ------------------------------------------------------------ what shows what


def outward(event: ToolCall) -> list[Destination]:
    """Where an act reaches that is not inside; addresses that it only writes down are none.

    An account counts where it is named as the recipient: there, money goes to it.
    """
    effect = event.reading.effect
    reaches = not effect.known or effect.sends or effect.outward or effect.runs or effect.standing
    pays = effect.changes and not effect.reversible
    out = []
    for where in event.reading.destinations:
        if where.relation == "inside":
            continue
        named = _is_within(where.field, effect.recipient_fields)
        written = (
            effect.known and not (effect.sends or effect.outward) and _is_within(where.field, effect.content_fields)
        )
        if (pays and named) or (reaches and where.kind != "account" and (named or not written)):
            out.append(where)
    return out


def marks_of(piece: Piece, find: Find, *, from_place: bool = False) -> tuple[str, ...]:
    """Why a text counts as sensitive: labels, checked values and private facts by pattern, or where it comes from."""
    found = [value.pattern for value in sensitive.values(piece, find)] if piece.hits else []
    private = [name for name in piece.hits if name.startswith("private.")]
    return tuple(dict.fromkeys((*sensitive.labels(piece), *found, *private, *(("place",) if from_place else ()))))


def is_sensitive(marks: tuple[str, ...]) -> bool:
    """A label, a secret, a checked number or a telling place does by itself; of weaker marks two are needed."""
    sure = any(m == "place" or m.startswith(("label.", "secret.")) or m in sensitive.NUMBERS for m in marks)
    return sure or len(marks) >= 2


def rigid_goals(piece: Piece, find: Find) -> list[str]:
    """Grades of rigidity that a system prompt shows; ``avoid … at all costs`` is a prohibition and shows none."""
    found = []
    for name in piece.hits:
        if name not in _GRADES:
            continue
        for start, end in find(name, piece.folded)[:16]:
            said = piece.folded[start:end]
            before = piece.folded[max(0, start - 60) : start]
            sentence = max(before.rfind(sign) for sign in ".!?;\n")
            is_held_back = name == "goal.absolute" and "stop" not in said and "else" not in said
            if is_held_back and any(word in before[sentence + 1 :] for word in _NOT):
                continue
            found.append(name)
            break
    return found


def _touches_oversight(event: ToolCall, tool: str) -> tuple[str, float] | None:
    """Where an act names what watches agents, and how surely it is against it."""
    effect = event.reading.effect
    if not (effect.changes or effect.runs or effect.standing or effect.sends or not effect.known):
        return None
    words = set(words_of(tool))
    if words & _WATCHES and words & _STOPS:
        return "by its name", 0.8
    if effect.known and effect.sends and not effect.standing and not effect.changes and not effect.runs:
        return None  # a message about monitoring touches none
    for piece in event.reading.pieces:
        if any(name.startswith("oversight.") for name in piece.hits) and not (
            effect.known and not effect.runs and _is_within(piece.field, effect.content_fields)
        ):
            return piece.field, 0.6
    return None


_GRADES = {"goal.absolute": 1.0, "goal.single": 0.5}
_STRANGE = {"web": 1.0, "mail": 0.9, "unknown tool": 0.6, "file or record": 0.5, "program": 0.4}


def _source(tool: str, effect: Effect) -> str:
    """Whose words a result most likely holds."""
    if effect.outward:
        return "web"
    words = words_of(tool)
    if is_a("message", words) or "inbox" in words or "mailbox" in words:
        return "mail"
    if not effect.known:
        return "unknown tool"
    return "program" if effect.runs else "file or record"


def _standing(where: Destination) -> str:
    stands = {"outside": "outside", "personal": "a personal mailbox"}.get(where.relation, "inside or outside not known")
    said = {0: "", 1: ", named by what it read", 2: ", named in material"}
    return stands + said.get(where.named_by, ", asked for")


def _is_said(event: Message) -> bool:
    """Whether it is something said rather than material handed over (as `core.reader` ranks it)."""
    if event.role == "system":
        return True
    return len(event.text or "") <= MAX_SAID and len(event.reading.destinations) <= MAX_ADDRESSED


def _is_named(use: PlaceUse, talk: _Talk, at_ns: int) -> bool:
    """Whether a user or the instructions had named it by then; of a mailbox its domain alone is not enough."""
    names = (use.address,) if use.kind == "mail" else (use.address, use.domain)
    return any(0 <= talk.named.get(name, -1) <= at_ns for name in names if name)


def _is_within(path: str, paths: tuple[str, ...]) -> bool:
    return any(path == one or path.startswith(f"{one}.") for one in paths)


def _joined(uses: dict[Any, Any], key: Any, use: Any) -> None:
    if (before := uses.get(key)) is None:
        uses[key] = type(use)(**{name: _copied(getattr(use, name)) for name in use.__struct_fields__})
    else:
        before.join(use)


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _best(proofs: list[Proof]) -> list[Proof]:
    """The surest `MAX_PROOFS` of different spans, of equals the earliest."""
    best: dict[str, Proof] = {}
    for proof in sorted(proofs, key=lambda proof: (-proof.weight, proof.at_ns, proof.span, proof.text)):
        best.setdefault(proof.span, proof)
    return list(best.values())[:MAX_PROOFS]


def _plain(name: str) -> str:
    return name.split(".", 1)[-1].replace("_", " ")


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
