"""What a call does: by name, by argument, by declaration, by hint, by the operator; in that order, only tighter."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.reading import Effect
from sidecar.core.tools import Override, ToolCatalogue, pin
from sidecar.core.tools.arguments import MAX_FIELDS

FLAGS = ("reads", "sends", "changes", "runs", "standing", "outward")


def effect(tool: str, arguments: Any = None, *more: Any, **named: Any) -> Effect:
    return ToolCatalogue().effect(tool, arguments, *more, **named)


def flags(what: Effect) -> set[str]:
    return {name for name in FLAGS if getattr(what, name)}


# ---------------------------------------------------------------- names

READS = (
    "read_inbox get_user_details list_files searchContacts mail_get order_status get_trade text_analyzer GmailReadEmail"
)
READS += " akte_lesen lire_dossier leer_archivo leggi_posta ler_arquivo lees_bestand weather Grep"
SENDS = (
    "send_email reply_to_thread slack_post notify upload_file email_invoice email add_comment transfer_to_human_agent"
)
SENDS += " mail_senden courriel_envoyer enviar_correo inviare_messaggio enviar_mensagem stuur_bericht portail_message"
FINAL = "delete_file update_reservation cancel_reservation book_flight pay transfer_funds create_order close_incident"
FINAL += " disable_alarm ack_alert deploy run_tests datei_loeschen supprimer_fichier borrar_archivo cancellare_file"
FINAL += " apagar_registro verwijder_bestand termin_absagen merge_pull_request click_element"
STANDING = (
    "create_mail_rule create_webhook set_permission schedule_task share_file grant_access create_api_key add_member"
)
STANDING += " invite_user create_cron_job crear_regla partager_document schedule_email"
MAKES = "create_file append_to_file add_note create_draft update_draft write_file edit_file create_ticket archive_mail"
MAKES += " store_memory create_memory update_memory todo_write git_commit speichern kopieren"
THINKS = "think calculate convert_currency sequentialthinking wait final_answer"


@pytest.mark.parametrize("tool", READS.split())
def test_reading_tools_read_and_are_reversible(tool: str) -> None:
    what = effect(tool)
    assert what.reads
    assert what.reversible
    assert what.known
    assert flags(what) <= {"reads", "outward"}


@pytest.mark.parametrize("tool", SENDS.split())
def test_what_reaches_people_is_irreversible(tool: str) -> None:
    what = effect(tool)
    assert what.sends
    assert what.known
    assert not what.reversible


@pytest.mark.parametrize("tool", FINAL.split())
def test_what_operators_would_not_want_undone_by_hand_is_irreversible(tool: str) -> None:
    what = effect(tool)
    assert what.known
    assert what.changes or what.runs
    assert not what.reversible


@pytest.mark.parametrize("tool", STANDING.split())
def test_what_outlives_the_act_is_standing(tool: str) -> None:
    what = effect(tool)
    assert what.standing
    assert what.known
    assert not what.reversible


@pytest.mark.parametrize("tool", MAKES.split())
def test_the_agents_own_material_is_reversible(tool: str) -> None:
    assert flags(effect(tool)) == {"changes"}
    assert effect(tool).reversible


@pytest.mark.parametrize("tool", THINKS.split())
def test_thinking_is_harmless(tool: str) -> None:
    assert flags(effect(tool)) == set()
    assert effect(tool).reversible
    assert effect(tool).known


@pytest.mark.parametrize("tool", ["frobnicate", "zorp_quux", "x", "", "kalender", "manage_records", "console"])
def test_unknown_tools_are_irreversible(tool: str) -> None:
    what = effect(tool)
    assert not what.known
    assert not what.reversible


@pytest.mark.parametrize("tool", ["http_get", "dns_lookup", "web_search", "browser_navigate", "google_search"])
def test_reads_that_reach_outside_say_so(tool: str) -> None:
    what = effect(tool)
    assert flags(what) == {"reads", "outward"}
    assert flags(effect("get_page", {"url": "https://x.example/?q=1"})) == {"reads", "outward"}
    assert "outward" not in flags(effect("google_calendar_get", {"day": "Monday"}))


def test_a_look_alike_does_what_it_looks_like_but_is_not_known() -> None:
    catalogue = ToolCatalogue({"send_email": Override(reversible=True)})
    for odd in ("send_emаil", "send_email ", "read_filе"):
        what = catalogue.effect(odd, None)
        assert what.odd_name
        assert not what.known
        assert not what.reversible
    assert catalogue.effect("send_emаil", None).sends
    assert catalogue.effect("read_filе", None).reads


def test_a_reading_verb_does_not_hide_what_is_joined_to_it() -> None:
    assert effect("get_and_send_report").sends
    assert effect("read_then_delete").changes
    assert effect("check_out_and_delete").changes
    assert effect("get_" + "a_" * 60 + "delete").changes


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("tool", "arguments", "does"),
    [
        ("email_client", {"action": "send_email", "to": "a@x.example"}, {"sends"}),
        ("email_client", {"action": "read_inbox"}, {"reads"}),
        ("email", {"action": "read"}, {"reads"}),
        ("security_console", {"module": "incidents", "action": "modify_config"}, {"changes"}),
        ("security_console", {"module": "logs", "action": "search"}, {"reads"}),
        ("banking_systems", {"operation": "transfer"}, {"changes"}),
        ("manage_record", {"action": "list"}, {"reads"}),
        ("memory", {"command": "view"}, {"reads"}),
        ("database_admin", {"command": "schedule_task"}, {"changes", "standing"}),
        ("call_tool", {"tool_name": "delete_file", "arguments": {}}, {"changes"}),
        ("message", {"type": "text", "text": "hi"}, {"sends"}),
        ("ticket_update", {"action": "delete"}, {"changes"}),
        ("get_record", {"action": "delete"}, {"reads", "changes"}),
        ("console", {"action": "read", "operation": "delete"}, {"reads", "changes"}),
        ("email", {"action": "read", "to": "a@x.example", "body": "b"}, {"reads", "sends"}),
    ],
)
def test_a_tool_of_many_uses_takes_its_verb_from_an_argument(tool: str, arguments: Any, does: set[str]) -> None:
    what = effect(tool, arguments)
    assert flags(what) == does
    assert what.known


def test_an_action_nobody_knows_is_unknown() -> None:
    what = effect("email", {"action": "frobnicate"})
    assert not what.known
    assert what.sends


@pytest.mark.parametrize(
    ("tool", "arguments", "does", "reversible"),
    [
        ("shell", {"cmd": "ls -la"}, {"reads", "runs"}, True),
        ("run_command", {"command": "rm -rf x"}, {"changes", "runs"}, False),
        ("mcp__term__bash", {"command": ["bash", "-c", "rm 'a b'"]}, {"changes", "runs"}, False),
        ("run_shell", {"command": "ls", "args": ["-la"]}, {"reads", "runs"}, True),
        ("run_shell", {"command": "rm", "args": ["-rf", "/"]}, {"changes", "runs"}, False),
        ("terminal", "cat notes", {"reads", "runs"}, True),
        ("git", {"args": "push origin"}, {"sends", "changes", "runs", "outward"}, False),
        ("git", {"command": "git status"}, {"reads", "runs"}, True),
        ("run_python", {"code": "print(1)"}, {"runs"}, False),
        ("execute_sql", {"sql": "SELECT 1 WHERE note = 'delete'"}, {"reads"}, True),
        ("execute_sql", {"sql": "DELETE FROM t"}, {"changes"}, False),
        ("query_database", {"query": "drop table t"}, {"reads", "changes"}, False),
        ("query_database", {"query": "delete old files?"}, {"reads"}, True),
        ("run_query", {"query": "UPDATE t SET a = 1"}, {"changes"}, False),
        ("postgres.query", {"sql": "select 1"}, {"reads"}, True),
        ("http_request", {"url": "https://x.example"}, {"reads", "outward"}, True),
        ("http_request", {"url": "https://x.example", "method": "POST"}, {"sends", "outward"}, False),
        ("http_request", {"url": "https://x.example", "body": "x"}, {"sends", "outward"}, False),
        ("http_get", {"url": "https://x.example", "method": "DELETE"}, {"reads", "sends", "changes", "outward"}, False),
        ("api_request", {"url": "https://x.example", "method": "POST"}, {"sends", "outward"}, False),
    ],
)
def test_executors_are_judged_by_what_they_are_given(
    tool: str, arguments: Any, does: set[str], reversible: bool
) -> None:
    what = effect(tool, arguments)
    assert flags(what) == does
    assert what.reversible == reversible
    assert what.known


@pytest.mark.parametrize("tool", ["shell", "execute_sql", "http_request", "run_python", "run_query", "git"])
def test_an_executor_whose_arguments_are_withheld_is_irreversible(tool: str) -> None:
    assert not effect(tool, None).reversible
    assert effect(tool, None).known


@pytest.mark.parametrize(
    "arguments",
    [
        {"schedule_at": "tomorrow"},
        {"cron": "* * * * *"},
        {"rule": "forward all"},
        {"forward_to": "a@x.example"},
        {"webhook": "https://x.example"},
        {"share_with": ["a@x.example"]},
        {"permission": "write"},
        {"api_key": "new"},
        {"options": {"schedule_at": "tomorrow"}},
        {"items": [{"title": "a"}, {"forwardTo": "a@x.example"}]},
        '{"schedule_at": "tomorrow"}',
    ],
)
def test_arguments_make_any_change_standing(arguments: Any) -> None:
    what = effect("create_note", arguments)
    assert what.standing
    assert not what.reversible
    assert what.known


@pytest.mark.parametrize("value", [None, "", " ", False, "none", "now", "false", [], {}])
def test_an_argument_that_says_no_makes_nothing_standing(value: Any) -> None:
    assert not effect("create_note", {"schedule_at": value}).standing


def test_filters_and_credentials_of_a_reading_tool_make_nothing_standing() -> None:
    assert not effect("list_items", {"permission": "read", "api_key": "k", "rule": "x"}).standing
    assert effect("list_items", {"schedule_at": "tomorrow"}).standing


def test_people_make_a_change_a_message_to_them() -> None:
    alone = effect("create_calendar_event", {"title": "gym", "participants": []})
    invited = effect("create_calendar_event", {"title": "gym", "participants": ["a@x.example"]})
    assert alone.reversible
    assert not alone.sends
    assert invited.sends
    assert not invited.reversible
    assert not effect("update_user", {"email": "a@x.example"}).sends


def test_a_message_is_known_by_its_arguments() -> None:
    what = effect("zorp", {"to": "a@x.example", "subject": "x", "body": "y"})
    assert what.sends
    assert what.known
    assert not effect("zorp", {"to": "a@x.example", "subject": "x", "body": ""}).known


@pytest.mark.parametrize(
    ("path", "reversible", "standing"),
    [("src/a.py", True, False), ("/etc/passwd", False, False), ("../.git/hooks/pre-push", False, True)],
)
def test_a_write_is_judged_by_where_it_goes(path: str, reversible: bool, standing: bool) -> None:
    what = effect("write_file", {"path": path, "content": "to: bob"})
    assert (what.reversible, what.standing) == (reversible, standing)


def test_an_edit_of_a_file_is_reversible_and_of_a_record_is_not() -> None:
    assert effect("Edit", {"file_path": "a.py", "old_string": "a", "new_string": "b"}).reversible
    assert not effect("update_ledger", {"file_path": "a.py", "amount": 7}).reversible


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("shell", {"commands": ["ls"] * 64 + ["rm x"]}),
        ("shell", {"runs": [{"command": "ls"}] * 8 + [{"command": "rm x"}]}),
        ("write_files", {"paths": ["a"] * 64 + ["/etc/passwd"]}),
        ("create_note", '{"title": "cut'),
        ("create_note", json.dumps({"title": "x" * 70_000, "schedule_at": "tomorrow"})),
    ],
)
def test_what_is_too_long_to_look_at_is_irreversible(tool: str, arguments: Any) -> None:
    assert not effect(tool, arguments).reversible


def test_the_names_inside_content_are_data() -> None:
    assert effect("write_file", {"path": "a.json", "content": {"schedule_at": "x", "cc": ["a@x.example"]}}).reversible


def test_more_arguments_than_can_be_looked_at_are_irreversible() -> None:
    many = {"items": [{"a": 1}] * MAX_FIELDS}
    assert not effect("create_note", many).reversible
    assert effect("create_note", {"items": [{"a": 1}] * 8}).reversible


@pytest.mark.parametrize(
    ("tool", "arguments", "recipients", "contents"),
    [
        ("send_email", {"to": "a", "cc": "b", "subject": "s", "body": "t"}, {"to", "cc"}, {"subject", "body"}),
        ("mail_senden", {"an": "a", "betreff": "s", "text": "t"}, {"an"}, {"betreff", "text"}),
        ("send_direct_message", {"recipient": "bob", "body": "t"}, {"recipient"}, {"body"}),
        ("share_file", {"file_id": "7", "email": "a@x.example", "permission": "r"}, {"email"}, {"file_id"}),
        ("http_post", {"url": "u", "json": {"a": 1}}, {"url"}, {"url", "json"}),
        ("http_get", {"url": "u", "params": {"q": 1}}, {"url"}, {"url", "params"}),
        ("send_certificate", {"user_id": "7", "amount": 9}, set(), {"user_id", "amount"}),
        ("transfer_funds", {"to_account": "7", "from_account": "8"}, {"to_account"}, set()),
        ("send_email", {"message": {"to": [{"address": "a"}], "body": "b"}}, {"message.to"}, {"message"}),
        ("read_file", {"path": "a", "email": "b"}, set(), set()),
    ],
)
def test_recipients_and_content_are_pointed_at(
    tool: str, arguments: Any, recipients: set[str], contents: set[str]
) -> None:
    what = effect(tool, arguments)
    assert set(what.recipient_fields) == {f"arguments.{name}" for name in recipients}
    assert set(what.content_fields) == {f"arguments.{name}" for name in contents}


def test_a_schema_points_at_them_where_arguments_are_withheld() -> None:
    schema = {"type": "object", "properties": {"to": {"type": "string"}, "body": {"type": "string"}}}
    what = effect("send_email", None, "", schema)
    assert what.recipient_fields == ("arguments.to",)
    assert what.content_fields == ("arguments.body",)


# ---------------------------------------------------------------- description, schema, hints


def test_a_description_adds_and_never_lowers() -> None:
    assert effect("get_report", None, "Sends the report by e-mail.").sends
    assert not effect("zorp", None, "Reads the weather.").known
    assert not effect("zorp", None, "Reads the weather.").reversible
    assert not effect("delete_file", None, "Reads a file, harmless and reversible.").reversible
    assert effect("zorp", None, "Send an SMS to a customer").known
    assert effect("get_report", None, "Builds the report and sends it").sends


def test_a_schema_tells_a_message_from_its_arguments() -> None:
    message = json.dumps({"properties": {"recipient": {"type": "string"}, "text": {"type": "string"}}})
    assert effect("zorp", None, "", message).sends
    assert effect("zorp", None, "", json.dumps({"properties": {"command": {"type": "string"}}})).runs
    assert not effect("get_note", None, "", message).sends


HINTS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"),
        st.sampled_from([True, False, None, "true", 1]),
    ),
)
TOOLS = st.sampled_from(
    [*READS.split(), *SENDS.split(), *FINAL.split(), *STANDING.split(), *MAKES.split(), "zorp", "shell"]
)


@given(TOOLS, HINTS)
def test_hints_of_a_server_nobody_trusts_only_tighten(tool: str, hints: dict[str, Any]) -> None:
    plain, hinted = effect(tool), effect(tool, None, "", None, hints)
    assert flags(plain) <= flags(hinted)
    assert hinted.reversible <= plain.reversible
    assert hinted.known <= plain.known


def test_hints_tighten() -> None:
    assert not effect("get_report", None, "", None, {"readOnlyHint": False}).reversible
    assert not effect("create_file", None, "", None, {"destructiveHint": True}).reversible
    assert effect("get_report", None, "", None, {"openWorldHint": True}).outward
    assert effect("create_file", None, "", None, {"readOnlyHint": False}).reversible


def test_a_trusted_server_may_lower_but_not_what_the_arguments_say() -> None:
    catalogue = ToolCatalogue(trusted_servers=["office"])
    hints = {"readOnlyHint": True}
    assert catalogue.effect("zorp", None, "", None, hints, server="office").reversible
    assert catalogue.effect("zorp", None, "Reads the weather.", server="office").reversible
    assert not catalogue.effect("zorp", None, "", None, hints, server="elsewhere").reversible
    assert not catalogue.effect("mcp__office__zorp", None, "", None, hints).reversible
    assert not catalogue.effect("zorp", {"schedule_at": "x"}, "", None, hints, server="office").reversible
    gentle = {"readOnlyHint": False, "destructiveHint": False}
    assert catalogue.effect("update_record", None, "", None, gentle, server="office").reversible
    assert not catalogue.effect("send_email", None, "", None, gentle, server="office").reversible


# ---------------------------------------------------------------- the operator


def test_what_the_operator_states_holds() -> None:
    catalogue = ToolCatalogue(
        {
            "zorp": Override(reads=True, reversible=True),
            "update_*": Override(reversible=True),
            "update_ledger": Override(standing=True, reversible=False),
            "lookup_?": Override(sends=True),
            "mcp__a__*": Override(runs=True),
            "page": Override(recipient_fields=("arguments.whom",)),
        }
    )
    assert catalogue.effect("zorp", {}).reversible
    assert catalogue.effect("zorp", {}).known
    assert catalogue.effect("server.update_record", {}).reversible
    assert catalogue.effect("update_ledger", {}).standing
    assert not catalogue.effect("update_ledger", {}).reversible
    assert catalogue.effect("lookup_x", {}).sends
    assert not catalogue.effect("lookup_x", {}).reversible
    assert not catalogue.effect("lookup_xy", {}).sends
    assert catalogue.effect("mcp__a__get", {}).runs
    assert not catalogue.effect("get", {}).runs
    assert catalogue.effect("page", {"whom": "a"}).recipient_fields == ("arguments.whom",)


def test_arguments_make_an_overridden_tool_standing_unless_the_operator_says_otherwise() -> None:
    arguments = {"schedule_at": "tomorrow"}
    assert not ToolCatalogue({"zorp": Override(reversible=True)}).effect("zorp", arguments).reversible
    calm = ToolCatalogue({"zorp": Override(reversible=True, standing=False)})
    assert calm.effect("zorp", arguments).reversible


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_patterns_fit_as_file_patterns_do(pattern: str, name: str) -> None:
    import fnmatch

    catalogue = ToolCatalogue({f"x{pattern}": Override(standing=True)})
    assert catalogue.effect(f"x{name}", None).standing == fnmatch.fnmatchcase(f"x{name}", f"x{pattern}")


# ---------------------------------------------------------------- all of it

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5),
    max_leaves=20,
)
KEYS = st.sampled_from(
    ["to", "action", "command", "sql", "url", "method", "body", "path", "schedule_at", "cc", "permission", "q"]
)
ARGUMENTS = JSON | st.dictionaries(KEYS, JSON, max_size=6)


@settings(max_examples=100)
@given(
    st.text(max_size=40) | TOOLS,
    ARGUMENTS,
    st.text(max_size=60),
    st.text(max_size=60) | JSON.filter(lambda x: isinstance(x, dict)),
)
def test_any_call_is_judged_and_always_the_same(tool: str, arguments: Any, description: str, schema: Any) -> None:
    catalogue = ToolCatalogue()
    first = catalogue.effect(tool, arguments, description, schema)
    assert catalogue.effect(tool, arguments, description, schema) == first
    assert ToolCatalogue().effect(tool, arguments, description, schema) == first
    assert first.known >= first.reversible
    assert not (first.reversible and (first.sends or first.standing))


@given(
    TOOLS,
    st.lists(st.dictionaries(KEYS, st.sampled_from(["", "x", "send", "rm x", "a@x.example"]), max_size=4), max_size=6),
)
def test_what_a_catalogue_saw_before_changes_no_answer(tool: str, calls: list[dict[str, str]]) -> None:
    catalogue = ToolCatalogue(capacity=2)
    for call in calls:
        assert catalogue.effect(tool, call) == effect(tool, call)


def test_the_catalogue_remembers_no_more_than_its_capacity() -> None:
    catalogue = ToolCatalogue(capacity=8)
    for number in range(100):
        catalogue.effect(f"tool_{number}", {f"k{shape}": 1 for shape in range(number)})
    for number in range(100):
        catalogue.effect("get_x", {f"k{number}": 1})
    assert len(catalogue._tools) == 8
    assert max(len(shapes) for _, shapes in catalogue._tools.values()) <= 32


def test_hostile_shapes_are_judged() -> None:
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(5000):
        inner["a"] = {}
        inner = inner["a"]
    for arguments in (deep, {f"k{n}": n for n in range(50_000)}, [[[[]]]] * 5000, {"k" * 100_000: "x"}, {1: {None: 2}}):
        assert not effect("zorp", arguments).reversible
    assert not effect("create_note", deep).reversible
    assert effect("ж" * 100_000 + "send", {}).odd_name
    assert not effect("zorp", "{" * 60_000).known
    assert not effect("zorp", None, "", "[" * 16_000).known


# ---------------------------------------------------------------- pins


def test_a_pin_is_of_the_declaration_and_not_of_its_spelling() -> None:
    first = pin("a", "b", '{"x": 1, "y": [1, 2]}', {"readOnlyHint": True})
    assert len(first) == 64
    assert pin("a", "b", {"y": [1, 2], "x": 1}, {"readOnlyHint": True}) == first
    others = [
        pin("a", "b", {"y": [2, 1], "x": 1}, {"readOnlyHint": True}),
        pin("a", "b", {"y": [1, 2], "x": "1"}, {"readOnlyHint": True}),
        pin("a", "b", {"y": [1, 2], "x": True}, {"readOnlyHint": True}),
        pin("a", "b", {"y": [1, 2], "x": 1}, {"readOnlyHint": False}),
        pin("a", "b ", {"y": [1, 2], "x": 1}, {"readOnlyHint": True}),
        pin("ab", "", {"y": [1, 2], "x": 1}, {"readOnlyHint": True}),
        pin("a", "b", "{", {"readOnlyHint": True}),
    ]
    assert len({first, *others}) == len(others) + 1


@given(st.text(), st.text(), st.text() | JSON.filter(lambda x: isinstance(x, dict)))
def test_anything_can_be_pinned(name: str, description: str, schema: Any) -> None:
    assert pin(name, description, schema) == pin(name, description, schema)


def test_hostile_declarations_can_be_pinned() -> None:
    deep = "[" * 100_000
    assert pin("a", "\ud800", deep) != pin("a", "\ud800", deep + "[")
    assert pin("a", "", {"x": object()}) == pin("a", "", {"x": object()})
    assert pin("a", "", {"x": 10**10_000}) != pin("a", "", {"x": -(10**10_000)})
