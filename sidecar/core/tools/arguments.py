"""A call's arguments as fields, and what their names mean: whom, where to, what, when, which file."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from sidecar.core.tools.names import latin
from sidecar.core.tools.words import listed, split

MAX_FIELDS: Final = 1024
"""Arguments that are looked at, nested ones included."""
MAX_NESTING: Final = 16
MAX_KEY: Final = 64
"""A longer key is no name."""
_MAX_JSON, _MAX_TEXTS, _MAX_NAMED = 65_536, 64, 32
_SCALARS: Final = (str, int, float, bool, type(None))

_PEOPLE: Final = listed("""
    recipient recipients cc bcc addressee addressees invite invites invitee invitees attendee attendees participant
    participants guest guests destinatario destinatarios destinataire destinataires empfaenger empfanger ontvanger
    ontvangers destinatari convidados invitados teilnehmer genodigden partecipanti
""")
"""Words of a name that always stand for people to be reached."""
_ADDRESSES: Final = listed("""
    email emails mail phone telephone mobile whatsapp channel channels kanal canal canale kanaal username handle
    chat room audience iban beneficiary payee address addresses contact contacts webhook endpoint url uri href host
    hostname domain website bucket repo repository remote destination dest
""")
_ADDRESSEES: Final = listed("to an a aan para pour with user users member members who target account number group")
"""The same, where nothing else stands in the name."""
_ACCOUNTS: Final = listed("payee beneficiary iban account wallet konto compte cuenta conto conta rekening")
_SENDERS: Final = listed("from sender source src reply own von de da remitente expediteur mittente van")
_CONTENT: Final = listed("""
    body text message msg content contents subject title html markdown comment note notes description data payload
    json caption attachment attachments file files filename summary reason answer value values params query headers
    form media image images document documents doc memo details inhalt betreff anhang nachricht texte contenu objet
    sujet corps piece texto contenido asunto cuerpo adjunto mensaje testo contenuto oggetto corpo allegato messaggio
    conteudo assunto mensagem anexo tekst inhoud onderwerp bericht bijlage
""")

PROSE: Final = listed("""
    body text message msg content html markdown texte contenu corps texto contenido cuerpo testo contenuto corpo
    conteudo mensagem mensaje messaggio nachricht inhalt tekst inhoud bericht
""")
"""Arguments that hold what a person is to read."""
LASTING: Final = listed("""
    schedule_at scheduled_at schedule_for scheduled_for scheduled_time schedule_time send_at deliver_at send_later
    delay_until cron cron_expression crontab rrule forward_to auto_forward forwarding forwarding_address webhook
    webhook_url callback_url share_with shared_with run_in_background is_background background detach daemon
    autostart persist persistent delegate_to
""")
"""Arguments that make any act standing."""
LASTING_IN_CHANGES: Final = listed("""
    schedule schedule_expression rule rules forward permission permissions access_level sharing api_key apikey
    access_key ssh_key public_key authorized_keys token_name role roles grant trigger triggers hook hooks recurrence
    repeat every then
""")
"""Arguments that make a change standing; a tool that reads takes them as filters or as its credentials."""
ACTIONS: Final = (
    "action", "operation", "op", "verb", "aktion", "accion", "acao", "azione", "actie", "action_type", "action_name",
    "operation_type", "operation_name", "operation_id", "tool_name", "function_name", "tool", "function", "name",
    "command", "cmd", "method", "task", "intent", "mode", "type",
)  # fmt: skip
"""Arguments that say what a tool of many uses is to do; the first that does so counts."""
SURE_ACTIONS: Final = listed("action operation op verb aktion accion acao azione actie")
LOOSE_ACTIONS: Final = listed("name method task intent mode type")
"""Those that as often hold something else, and count only with a verb that is no noun."""
MODULES: Final = (
    "object", "object_type", "entity", "entity_type", "resource", "resource_type", "target", "service", "platform",
    "module", "system",
)  # fmt: skip
"""Arguments that say on what; the last counts most."""
COMMANDS: Final = listed("command commands cmd script input line args arguments shell_command command_line code")
SQL: Final = listed("sql query statement statements q sql_query command cmd input")
PATHS: Final = listed("""
    path paths file file_path filepath filename file_name target_file target destination dest output output_path
    out_path notebook_path new_path to
""")
FILES: Final = listed("path file_path filepath filename file_name target_file notebook_path")
URLS: Final = listed("url urls uri href endpoint webpage website hostname fqdn page_url")
METHODS: Final = listed("method http_method verb request_method")
BODIES: Final = listed("body data json payload form files file content text")
_DATA: Final = listed("content contents text texts value values cells rows")
"""Arguments whose parts are data and have no names of their own."""
_NO: Final = listed("none null never no off false 0 private now immediately -")
"""Values that say no."""


class Name(Struct, frozen=True):
    """An argument's name and what it stands for.

    Attributes:
        key: Its words, joined by ``_``.
        people: It always names people to be reached.
        recipient: It names people, an address, an account or a place that something goes to.
        payee: It names whom money or a booking goes to.
        content: It holds what is said, sent or written.
    """

    key: str = ""
    people: bool = False
    recipient: bool = False
    payee: bool = False
    content: bool = False


class Field(Struct, frozen=True):
    """One argument.

    Attributes:
        path: Dotted, for instance ``arguments.message.to``.
        value: A scalar, a list of scalars, or whether there is something in it (`True`) where it has parts.
    """

    path: str
    name: Name
    value: Any

    @property
    def key(self) -> str:
        return self.name.key

    def texts(self) -> Iterable[str]:
        """The texts of its value, at most 64."""
        if isinstance(self.value, str):
            return (self.value,)
        if isinstance(self.value, list | tuple):
            return [value for value in self.value[:_MAX_TEXTS] if isinstance(value, str)]
        return ()

    def is_long(self) -> bool:
        """Whether it has more values than `texts` shows."""
        return isinstance(self.value, list | tuple) and len(self.value) > _MAX_TEXTS

    def is_set(self) -> bool:
        """Whether it holds something that is not a way to say no."""
        if isinstance(self.value, str):
            return bool(self.value) and not self.value.isspace() and self.value[:16].strip().lower() not in _NO
        return bool(self.value)

    def holds_a_mailbox(self) -> bool:
        return any("@" in text[1:1024] for text in self.texts())


_NO_NAME: Final = Name()


def fields_of(arguments: Any) -> tuple[list[Field], bool]:
    """The arguments as fields, in their order, and whether all could be looked at. A text may be an object's JSON."""
    complete = True
    if isinstance(arguments, str):
        arguments = _object(arguments)
        complete = not isinstance(arguments, str) or arguments[:1] != "{"  # cut JSON
    if type(arguments) is dict and len(arguments) <= MAX_FIELDS and is_flat(arguments):
        return [Field(_below("arguments", name), _name(name), value) for name, value in arguments.items()], complete
    found: list[Field] = []
    stack: list[tuple[str, str, Any, int]] = [("arguments", "", arguments, 0)]
    while stack:
        path, key, value, depth = stack.pop()
        if len(found) + len(stack) > MAX_FIELDS:
            return found, False
        if not isinstance(value, Mapping) and not _has_parts(value):
            found.append(Field(path, _name(key), value))
            continue
        if key:  # what stands inside an argument is still about it: `to.0.address`
            found.append(Field(path, _name(key), bool(value)))
        if depth >= MAX_NESTING:
            complete = False
            continue
        if isinstance(value, Mapping):
            parts = list(itertools.islice(value.items(), MAX_FIELDS))
            for name, part in reversed(parts):
                named = key not in _DATA and isinstance(name, str) and (depth == 0 or len(name) > 1)
                stack.append((_below(path, name), name if named else key, part, depth + 1))
        else:
            parts = list(enumerate(value[:MAX_FIELDS]))
            stack.extend((f"{path}.{index}", key, part, depth + 1) for index, part in reversed(parts))
        complete &= len(parts) == len(value)
    return found, complete


def declared_fields(schema: str) -> tuple[Field, ...]:
    """The arguments that a JSON Schema declares, at most 64, without values."""
    try:
        read = msgspec.json.decode(schema) if schema else None
    except (ValueError, RecursionError):
        return ()
    properties = read.get("properties", read) if isinstance(read, dict) else None
    if not isinstance(properties, dict):
        return ()
    names = [name for name, about in properties.items() if isinstance(about, dict)]
    return tuple(Field(f"arguments.{name}", _name(name), None) for name in names[:64])


def is_message(fields: Iterable[Field]) -> bool:
    """Whether the fields are those of a message: somebody to reach, and something to read."""
    fields = list(fields)
    return any(field.name.recipient for field in fields) and any(field.key in PROSE for field in fields)


def outermost(fields: Iterable[Field]) -> tuple[str, ...]:
    """The fields' paths, without those that stand below another one, at most 32."""
    paths: list[str] = []
    above = "\0"
    for field in fields:
        if len(paths) >= _MAX_NAMED:
            break
        if not field.path.startswith(above) and field.path not in paths:
            paths.append(field.path)
            above = field.path + "."
    return tuple(paths)


def _below(path: str, name: Any) -> str:
    return f"{path}.{name}" if isinstance(name, str) and len(name) <= MAX_KEY else f"{path}.(key)"


def _name(key: Any) -> Name:
    return _read_name(key) if isinstance(key, str) and len(key) <= MAX_KEY else _NO_NAME


@functools.lru_cache(maxsize=4096)
def _read_name(name: str) -> Name:
    listed_words = split(latin(name))
    key, words = "_".join(listed_words), frozenset(listed_words)
    people, sender = not words.isdisjoint(_PEOPLE), not words.isdisjoint(_SENDERS)
    to = key == "to" or key.startswith("to_")
    addressed = to or key.endswith(("_to", "_with")) or not words.isdisjoint(_ADDRESSES)
    dated = key.endswith(("_date", "_time"))
    return Name(
        key,
        people=people,
        recipient=people or key in _ADDRESSEES or (addressed and not sender and not dated),
        payee=not sender and not dated and (people or to or not words.isdisjoint(_ACCOUNTS)),
        content=not words.isdisjoint(_CONTENT),
    )


def is_flat(arguments: dict[Any, Any]) -> bool:
    """Whether all values are scalars or short lists of scalars."""
    for value in arguments.values():
        kind = type(value)
        if kind is list:
            if len(value) > _MAX_TEXTS:
                return False
            for part in value:
                if type(part) not in _SCALARS:
                    return False
        elif kind not in _SCALARS:
            return False
    return True


def _has_parts(value: Any) -> bool:
    if not isinstance(value, list | tuple):
        return False
    return any(isinstance(part, Mapping | list | tuple) for part in value[:MAX_FIELDS])


def _object(text: str) -> Any:
    """The object whose JSON the text is, else the text."""
    if text[:1] == "{" and len(text) <= _MAX_JSON:
        try:
            return msgspec.json.decode(text)
        except (ValueError, RecursionError):
            pass
    return text
