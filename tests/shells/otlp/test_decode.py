"""OTLP requests become spans, in both of their forms, with the bad inputs of the catalogue's rows 5-23 and 36-40."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.core.span import Span
from sidecar.errors import SpanError
from sidecar.sources.decode import DUPLICATES, REFUSED, TOO_DEEP, Decoded, Limits, begin, decode
from tests.shells.otlp.kit import AT, ID, TRACE, as_json, field, logs, record, span, traces, tree, value

FORMS = ("proto", "json")
LIMITS = Limits()


def told(request: Any, form: str = "proto", limits: Limits = LIMITS) -> Decoded:
    signal = "traces" if "Trace" in type(request).__name__ else "logs"
    body = request.SerializeToString() if form == "proto" else as_json(request)
    return decode(signal, body, form, limits)  # type: ignore[arg-type]


def only(decoded: Decoded) -> Span:
    (single,) = decoded.spans
    return single


def refused(signal: Any, body: bytes, form: str, limits: Limits = LIMITS) -> str:
    with pytest.raises(SpanError) as caught:
        decode(signal, body, form, limits)  # type: ignore[arg-type]
    assert caught.value.reason in REFUSED
    return caught.value.reason


@pytest.mark.parametrize("form", FORMS)
def test_a_span_keeps_every_field(form: str) -> None:
    sent = span(
        7,
        [
            ("text", "a"),
            ("none", ""),
            ("yes", True),
            ("n", -5),
            ("x", 1.5),
            ("raw", b"\0\xff"),
            ("deep", [{"a": [1]}, None]),
        ],
        parent_span_id=ID,
        trace_state="vendor=1",
        dropped_attributes_count=3,
    )
    sent.status.code, sent.status.message = 2, "refused"
    event = sent.events.add(name="exception", time_unix_nano=AT + 5)
    event.attributes.add(key="exception.message").value.string_value = "no"
    link = sent.links.add(trace_id=TRACE, span_id=ID)
    link.attributes.add(key="why").value.string_value = "hand-off"
    request = traces(sent)
    request.resource_spans[0].schema_url = "https://example.org/schema"
    got = only(told(request, form))
    assert (got.signal, got.trace_id, got.span_id, got.parent_id) == ("span", TRACE.hex(), f"{7:016x}", ID.hex())
    assert (got.name, got.start_ns, got.end_ns, got.dropped) == ("execute_tool send", AT, AT + 1000, 3)
    assert got.attributes == {
        "text": "a", "none": "", "yes": True, "n": -5, "x": 1.5, "raw": b"\0\xff", "deep": [{"a": [1]}, None],
    }  # fmt: skip
    assert (got.status, got.status_message, got.scope) == (2, "refused", "tests")
    assert got.resource == {"service.name": "mailer"}
    assert [(e.name, e.at_ns, e.attributes) for e in got.events] == [("exception", AT + 5, {"exception.message": "no"})]
    assert got.rest["trace_state"] == "vendor=1"
    assert got.rest["schema_url"] == ["https://example.org/schema"]
    assert got.rest["links"][0]["attributes"] == {"why": "hand-off"}
    assert got.notes == ()


@pytest.mark.parametrize("form", FORMS)
def test_a_log_record_keeps_every_field(form: str) -> None:
    request = logs(record([("gen_ai.system", "x")], {"role": "user", "content": ["a", 1]}, severity_text="INFO"))
    got = only(told(request, form))
    assert (got.signal, got.trace_id, got.span_id, got.name) == ("log", TRACE.hex(), ID.hex(), "gen_ai.choice")
    assert (got.start_ns, got.end_ns) == (0, AT)
    assert got.body == {"role": "user", "content": ["a", 1]}
    assert got.rest == {"severity_text": "INFO"}


@pytest.mark.parametrize("form", FORMS)
def test_a_log_record_outside_a_trace_has_no_ids(form: str) -> None:
    for ids in ({"trace_id": b"", "span_id": b""}, {"trace_id": bytes(16), "span_id": bytes(8)}):
        got = only(told(logs(record(**ids)), form))
        assert (got.trace_id, got.span_id, got.notes) == ("", "", ())
    got = only(told(logs(record(trace_id=b"abc")), form))
    assert (got.trace_id, got.span_id, got.notes) == ("", ID.hex(), ("invalid_id",))


@pytest.mark.parametrize("form", FORMS)
def test_row_6_values_nested_too_deep_are_replaced(form: str) -> None:
    def nest(levels: int, leaf: Any) -> Any:
        return leaf if not levels else [nest(levels - 1, leaf)]

    got = only(told(traces(span(1, [("v", nest(32, "kept")), ("w", nest(33, "lost"))])), form))
    assert got.attributes["v"] == nest(32, "kept")
    assert got.attributes["w"] == nest(32, TOO_DEEP)
    assert got.notes == ("too_deep",)


@pytest.mark.parametrize(("number", "kind"), [(5, "arrays"), (6, "maps")])
def test_row_6_fifty_deep_is_cut_and_sixty_refuses_the_request(number: int, kind: str) -> None:
    def request(levels: int) -> bytes:
        nested = value("leaf").SerializeToString()
        for _ in range(levels):
            inner = field(1, nested) if number == 5 else field(1, field(1, b"k") + field(2, nested))
            nested = field(number, inner)
        attribute = field(9, field(1, b"a") + field(2, nested))
        return field(1, field(2, field(2, span(1, [("b", "beside")]).SerializeToString() + attribute)))

    got = only(decode("traces", request(50), "proto", LIMITS))
    assert "too_deep" in got.notes, kind
    assert got.attributes["b"] == "beside"
    assert TOO_DEEP in str(got.attributes["a"])
    assert refused("traces", request(60), "proto") == "malformed"
    assert refused("traces", request(1000), "proto") == "malformed"


@pytest.mark.parametrize("form", FORMS)
def test_row_7_of_values_with_one_key_the_first_counts_and_the_others_are_kept_aside(form: str) -> None:
    repeated = span(1, [("k", "first"), ("other", 1), ("k", "second"), ("k", "third")])
    got = only(told(traces(repeated), form))
    assert got.attributes["k"] == "first"
    assert got.attributes[DUPLICATES] == [{"key": "k", "value": "second"}, {"key": "k", "value": "third"}]
    assert got.notes == ("duplicate_key",)

    many = span(1)
    listed = many.attributes.add(key="list").value.kvlist_value
    for n in range(10_000):
        listed.values.add(key="k").value.int_value = n
    decoded = told(traces(many), form, Limits(span_nodes=100_000))
    assert only(decoded).attributes["list"] == {"k": 0}
    assert len(only(decoded).attributes[DUPLICATES]) == 64
    assert decoded.notes == {"duplicate_key": 1}


@pytest.mark.parametrize("form", FORMS)
def test_row_8_a_text_of_3_mib_is_kept_whole_and_one_beyond_the_limit_is_cut(form: str) -> None:
    got = only(told(traces(span(1, [("long", "x" * (3 * 2**20))])), form))
    assert len(got.attributes["long"]) == 3 * 2**20
    assert got.notes == ()
    got = only(told(traces(span(1, [("long", "x" * 2000), ("in", ["y" * 2000])])), form, Limits(text=1024)))
    assert (len(got.attributes["long"]), len(got.attributes["in"][0]), got.notes) == (1024, 1024, ("cut",))


@pytest.mark.parametrize(
    "place",
    [field(5, b"a\xff"), field(9, field(1, b"\xff")), field(9, field(1, b"k") + field(2, field(1, b"\xc0\x80")))],
)
def test_row_9_invalid_utf8_refuses_the_request(place: bytes) -> None:
    body = field(1, field(2, field(2, span().SerializeToString() + place)))
    assert refused("traces", body, "proto") == "malformed"


@pytest.mark.parametrize("form", FORMS)
def test_row_10_nul_and_noncharacters_are_kept(form: str) -> None:
    text = "a\0b\ufffe\U0001f600\u202e"
    got = only(told(traces(span(1, [(text, text)], name=text)), form))
    assert got.attributes == {text: text}
    assert got.name == text


@pytest.mark.parametrize("form", FORMS)
def test_row_11_numbers_that_are_not_finite_become_texts_with_a_note(form: str) -> None:
    numbers = [("a", float("nan")), ("b", float("inf")), ("c", [float("-inf")]), ("d", 1e308), ("e", 5e-324)]
    decoded = told(traces(span(1, numbers)), form)
    assert only(decoded).attributes == {"a": "NaN", "b": "Infinity", "c": ["-Infinity"], "d": 1e308, "e": 5e-324}
    assert decoded.notes == {"nonfinite": 1}


@pytest.mark.parametrize("form", FORMS)
def test_row_12_the_ends_of_64_bits_do_not_overflow(form: str) -> None:
    sent = span(1, [("low", -(2**63)), ("high", 2**63 - 1)], end_time_unix_nano=2**64 - 1)
    got = only(told(traces(sent), form))
    assert got.attributes == {"low": -(2**63), "high": 2**63 - 1}
    assert (got.end_ns, got.notes) == (2**63 - 1, ("time_clamped",))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "ids",
    [
        {"trace_id": b""},
        {"trace_id": b"a" * 15},
        {"trace_id": b"a" * 17},
        {"trace_id": b"a" * 32},
        {"trace_id": bytes(16)},
        {"span_id": b"a" * 7},
        {"span_id": bytes(8)},
    ],
)
def test_row_13_a_span_with_an_invalid_id_is_rejected_and_the_others_are_taken(
    form: str, ids: dict[str, bytes]
) -> None:
    decoded = told(traces(span(1), span(2, **ids), span(3)), form)
    assert [got.span_id for got in decoded.spans] == [f"{1:016x}", f"{3:016x}"]
    assert decoded.rejected == {"invalid_id": 1}


def test_row_14_a_span_without_an_id_gets_one_from_its_content_in_both_forms() -> None:
    first, second = span(1, [("a", 1)], span_id=b""), span(1, [("a", 2)], span_id=b"")
    made = {form: [got.span_id for got in told(traces(first, second), form).spans] for form in FORMS}
    assert made["proto"] == made["json"]
    assert len(set(made["proto"])) == 2
    assert only(told(traces(first))).span_id == made["proto"][0]
    assert only(told(traces(first))).notes == ("bad_tree",)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("parent", [(1).to_bytes(8, "big"), b"abc"])
def test_row_14_a_span_that_is_its_own_parent_or_has_an_odd_one_is_taken_flat(form: str, parent: bytes) -> None:
    got = only(told(traces(span(1, parent_span_id=parent)), form))
    assert (got.parent_id, got.notes) == ("", ("bad_tree",))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("start", "end", "notes"),
    [
        (AT + 1, AT, ("bad_time",)),
        (0, 0, ("bad_time",)),
        (1, 2, ()),
        (2**64 - 2, 2**64 - 1, ("time_clamped",)),
        (AT + 86_400 * 10**9, AT + 86_401 * 10**9, ()),
    ],
)
def test_row_18_odd_times_are_taken(form: str, start: int, end: int, notes: tuple[str, ...]) -> None:
    assert only(told(traces(span(1, start_time_unix_nano=start, end_time_unix_nano=end)), form)).notes == notes


@pytest.mark.parametrize("size", [1, 20_000])
def test_row_21_fields_of_a_newer_protocol_are_ignored_and_counted(size: int) -> None:
    newer = field(100, b"new")
    sent = span(1, [("text", "x" * size)]).SerializeToString()
    body = field(1, field(2, field(2, sent + newer) + newer) + newer) + newer
    decoded = decode("traces", body, "proto", LIMITS)
    assert only(decoded).notes == ("unknown_field",)
    assert decoded.notes["unknown_field"] == 4
    told_in_json = tree(traces(span()))
    told_in_json["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["somethingNew"] = {"a": []}
    assert only(decode("traces", json.dumps(told_in_json).encode(), "json", LIMITS)).notes == ("unknown_field",)


@pytest.mark.parametrize("form", FORMS)
def test_row_22_many_events_and_links_are_cut_and_long_texts_are_all_kept(form: str) -> None:
    sent = span(1, trace_state="t" * 65536)
    sent.status.message = "m" * 2**20
    for n in range(10_000):
        sent.events.add(name=str(n))
        sent.links.add(trace_id=TRACE, span_id=ID)
    request = traces(sent)
    request.resource_spans[0].scope_spans[0].schema_url = "<script>alert(1)</script>"
    got = only(told(request, form, Limits(span_nodes=100_000)))
    assert (len(got.events), len(got.rest["links"]), got.notes) == (1024, 1024, ("cut",))
    assert got.rest["schema_url"] == ["<script>alert(1)</script>"]
    assert (len(got.rest["trace_state"]), len(got.status_message)) == (65536, 2**20)


@pytest.mark.parametrize("body", [b"", field(1, b""), field(1, field(1, b"")), field(1, field(2, b""))])
def test_row_23_requests_without_spans_are_taken(body: bytes) -> None:
    assert decode("traces", body, "proto", LIMITS) == Decoded("traces", [], {}, {})


@pytest.mark.parametrize(
    "body", [b"{}", b'{"resourceSpans":[]}', b'{"resourceSpans":[{}]}', b'{"resource_spans":[{"x":1}]}']
)
def test_row_23_json_without_spans_is_taken(body: bytes) -> None:
    assert decode("traces", body, "json", LIMITS).spans == []


def test_row_4_too_many_spans_are_refused_before_any_is_built() -> None:
    body = field(1, field(2, field(2, b"") * 400_000))
    decoding = begin("traces", body, "proto", LIMITS)
    with pytest.raises(SpanError, match="20000") as caught:
        for _ in decoding.count():
            pass
    assert caught.value.reason == "too_many_spans"
    records = b",".join([b"{}"] * 20_001)
    assert (
        refused("traces", b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + records + b"]}]}]}", "json")
        == "too_many_spans"
    )


@pytest.mark.parametrize("envelope", [field(1, b""), field(1, field(2, b"")), field(7, b"x"), field(1, field(9, b""))])
def test_envelopes_around_nothing_are_bounded_too(envelope: bytes) -> None:
    assert refused("traces", envelope * 200_000, "proto") == "too_many_nodes"


def test_row_5_a_span_of_a_million_attributes_is_rejected_and_the_others_are_taken() -> None:
    flood = span(1).SerializeToString() + field(9, b"") * 1_000_000
    body = field(1, field(2, field(2, flood) + field(2, span(2).SerializeToString())))
    decoded = decode("traces", body, "proto", LIMITS)
    assert only(decoded).span_id == f"{2:016x}"
    assert decoded.rejected == {"too_many_attributes": 1}


@pytest.mark.parametrize("form", FORMS)
def test_the_limit_of_attributes_holds_for_small_spans_too(form: str) -> None:
    request = traces(span(1, [(str(n), n) for n in range(11)]), span(2, [(str(n), n) for n in range(10)]))
    decoded = told(request, form, Limits(attributes=10))
    assert (only(decoded).span_id, decoded.rejected) == (f"{2:016x}", {"too_many_attributes": 1})


def test_very_many_unknown_fields_reject_their_span() -> None:
    odd = span(1).SerializeToString() + field(99, b"") * 45_000
    assert decode("traces", field(1, field(2, field(2, odd))), "proto", LIMITS).rejected == {"too_many_nodes": 1}


def test_one_value_of_very_many_parts_rejects_its_span() -> None:
    rich = span(1).SerializeToString() + field(9, field(1, b"k") + field(2, field(5, field(1, b"") * 1_000_000)))
    decoded = decode("traces", field(1, field(2, field(2, rich))), "proto", LIMITS)
    assert decoded.rejected == {"too_many_nodes": 1}
    parts = b",".join([b"{}"] * 250_000)
    value_ = b'[{"key":"k","value":{"arrayValue":{"values":[' + parts + b"]}}}]"
    span_ = (
        b'{"traceId":"'
        + TRACE.hex().encode()
        + b'","spanId":"'
        + ID.hex().encode()
        + b'","attributes":'
        + value_
        + b"}"
    )
    body = b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + span_ + b"]}]}]}"
    assert decode("traces", body, "json", LIMITS).rejected == {"too_many_nodes": 1}


@pytest.mark.parametrize("form", FORMS)
def test_the_values_of_a_whole_request_are_bounded(form: str) -> None:
    request = traces(*(span(n, [("v", [[]] * 100)]) for n in range(1, 50)))
    body = request.SerializeToString() if form == "proto" else as_json(request)
    assert refused("traces", body, form, Limits(nodes=3000)) == "too_many_nodes"


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a":' * 100_000, b'{"resourceSpans":' + b"[" * 100_000 + b"]" * 100_000 + b"}"]
)
def test_row_36_json_nested_very_deep_is_refused(text: bytes) -> None:
    assert refused("traces", text, "json") in ("too_deep", "malformed")


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1e999}', b'{"a":' + b"9" * 5000 + b"}", b"\xef\xbb\xbf{}",
        b'{"a":"\\ud800"}', b'{"a":"\\uDC00x"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xff"}', b'{"a":"\x01"}',
        b"[]", b"1", b"",
        b'{"a":1,}', b'{"a":01}', b'{"a":1}{}', '{"a":1}'.encode("utf-16"), b"{'a':1}",
    ],
)  # fmt: skip
def test_row_37_text_that_is_not_json_is_refused(text: bytes) -> None:
    assert refused("traces", text, "json") == "malformed"


def request_of(record_: str) -> bytes:
    return f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{record_}]}}]}}]}}'.encode()


IDS = f'"traceId":"{TRACE.hex()}","spanId":"{ID.hex()}","startTimeUnixNano":"{AT}","endTimeUnixNano":"{AT}"'


def test_row_37_of_members_told_twice_the_last_counts_and_all_are_kept() -> None:
    attribute = '{"key":"cmd","value":{"stringValue":"hidden"},"value":{"stringValue":"shown"}}'
    got = only(
        decode("traces", request_of(f'{{{IDS},"name":"a","name":"b","attributes":[{attribute}]}}'), "json", LIMITS)
    )
    assert (got.name, got.attributes["cmd"], got.notes) == ("b", "shown", ("duplicate_key",))
    assert got.attributes[DUPLICATES] == [
        {"key": "name", "value": "a"},
        {"key": "value", "value": '{"stringValue":"hidden"}'},
    ]


def test_row_37_lists_told_twice_are_joined_so_that_no_span_is_hidden() -> None:
    first, second = (f'{{"spans":[{{{IDS},"name":"{name}"}}]}}' for name in "ab")
    body = f'{{"resourceSpans":[{{"scopeSpans":[{first}],"scopeSpans":[{second}]}}]}}'.encode()
    assert [got.name for got in decode("traces", body, "json", LIMITS).spans] == ["a", "b"]
    many = f'{{"resourceSpans":[{{"scopeSpans":[{first}]}}]' + ',"resourceSpans":[]' * 1000 + "}"
    assert len(decode("traces", many.encode(), "json", LIMITS).spans) == 1


def test_row_37_what_was_told_twice_around_the_spans_is_kept_with_each_of_them() -> None:
    scope = '"scope":{"name":"hidden"},"scope":{"name":"shown"}'
    body = f'{{"resourceSpans":[{{"scopeSpans":[{{{scope},"spans":[{{{IDS}}}]}}]}}]}}'.encode()
    got = only(decode("traces", body, "json", LIMITS))
    assert (got.scope, got.notes) == ("shown", ("duplicate_key",))
    assert got.attributes[DUPLICATES] == [{"key": "scope", "value": '{"name":"hidden"}'}]


@pytest.mark.parametrize(
    ("trace_id", "outcome"),
    [
        (TRACE.hex(), "taken"),
        (TRACE.hex().upper(), "taken"),
        ("AQIDBAUGBwgJCgsMDQ4PEA==", "malformed"),
        (TRACE.hex()[:-1], "malformed"),
        (TRACE.hex()[:-2], "invalid_id"),
        ("0x" + TRACE.hex()[2:], "malformed"),
        (" ".join(["aa"] * 11), "malformed"),
        ("０" * 32, "malformed"),
        ("", "invalid_id"),
    ],
)
def test_row_38_ids_are_hexadecimal_in_either_case_and_end_as_16_bytes(trace_id: str, outcome: str) -> None:
    body = request_of(f'{{"traceId":"{trace_id}","spanId":"{ID.hex()}"}}')
    if outcome == "malformed":
        assert refused("traces", body, "json") == "malformed"
    elif outcome == "invalid_id":
        assert decode("traces", body, "json", LIMITS).rejected == {"invalid_id": 1}
    else:
        assert only(decode("traces", body, "json", LIMITS)).trace_id == TRACE.hex()


@pytest.mark.parametrize(
    ("member", "attributes"),
    [
        ('"attributes":[{"key":"a","value":{"intValue":"-12"}}]', {"a": -12}),
        ('"attributes":[{"key":"a","value":{"intValue":-12}}]', {"a": -12}),
        ('"attributes":[{"key":"a","value":{"doubleValue":"1.5"}}]', {"a": 1.5}),
        ('"attributes":[{"key":"a","value":{"doubleValue":2}}]', {"a": 2.0}),
        ('"attributes":[{"key":"a","value":{"bytesValue":"AP8="}}]', {"a": b"\0\xff"}),
        ('"attributes":[{"key":"a","value":{"bytesValue":"-_8"}}]', {"a": b"\xfb\xff"}),
        ('"attributes":[{"key":"a","value":{}},{"key":"b","value":null},{"key":"c"},null]', {}),
        ('"attributes":null,"events":null,"links":[null],"status":null,"parentSpanId":null,"name":null', {}),
        ('"kind":99,"status":{"code":2}', {}),
        ('"trace_id":"zz","start_time_unix_nano":{}', {}),
    ],
)  # fmt: skip
def test_rows_39_and_40_what_otlp_json_allows(member: str, attributes: dict[str, Any]) -> None:
    assert only(decode("traces", request_of(f"{{{IDS},{member}}}"), "json", LIMITS)).attributes == attributes


@pytest.mark.parametrize(
    "member",
    [
        '"kind":"SPAN_KIND_CLIENT"', '"status":{"code":"STATUS_CODE_ERROR"}', '"name":1',
        '"attributes":{}', '"status":[]',
        '"events":[[]]', '"attributes":[{"key":"a","value":[]}]',
        '"attributes":[{"key":"a","value":{"arrayValue":[]}}]',
        '"attributes":[{"key":"a","value":{"intValue":1.5}}]',
        '"attributes":[{"key":"a","value":{"intValue":"1_0"}}]',
        '"attributes":[{"key":"a","value":{"intValue":"9223372036854775808"}}]', '"startTimeUnixNano":-1',
        '"startTimeUnixNano":"18446744073709551616"', '"attributes":[{"key":"a","value":{"doubleValue":"inf"}}]',
        '"attributes":[{"key":"a","value":{"bytesValue":"*"}}]',
        '"attributes":[{"key":"a","value":{"boolValue":"true"}}]',
        '"attributes":[{"key":"a","value":{"stringValue":"shown","intValue":1}}]', '"droppedAttributesCount":"1"',
    ],
)  # fmt: skip
def test_rows_39_and_40_what_otlp_json_forbids(member: str) -> None:
    assert refused("traces", request_of(f"{{{IDS},{member}}}"), "json") == "malformed"


@pytest.mark.parametrize(
    "text", [b'{"resourceSpans":{}}', b'{"resourceSpans":[[]]}', b'{"resourceSpans":[{"scopeSpans":[{"spans":[1]}]}]}']
)
def test_row_40_an_array_where_an_object_belongs_is_refused(text: bytes) -> None:
    assert refused("traces", text, "json") == "malformed"


@pytest.mark.parametrize("form", FORMS)
def test_a_resource_is_read_once_and_its_notes_are_those_of_its_spans(form: str) -> None:
    request = traces(span(1), span(2), resource=[("service.name", "a"), ("service.name", "b"), ("x", float("nan"))])
    decoded = told(request, form)
    assert decoded.spans[0].resource is decoded.spans[1].resource
    assert decoded.spans[0].resource[DUPLICATES] == [{"key": "service.name", "value": "b"}]
    assert [got.notes for got in decoded.spans] == [("duplicate_key", "nonfinite")] * 2


def test_a_resource_told_after_its_spans_or_in_two_parts_counts_for_them() -> None:
    spans = field(2, field(2, span().SerializeToString()))
    parts = [traces(resource=[(key, key)]).resource_spans[0].resource.SerializeToString() for key in "ab"]
    body = field(1, field(1, parts[0]) + spans + field(1, parts[1]))
    assert only(decode("traces", body, "proto", LIMITS)).resource == {"a": "a", "b": "b"}


@pytest.mark.parametrize("form", FORMS)
def test_what_a_request_holds_is_told_by_its_content(form: str) -> None:
    for request, signal in ((traces(), "traces"), (logs(), "logs"), (logs(record(trace_id=b"", span_id=b"")), "logs")):
        body = request.SerializeToString() if form == "proto" else as_json(request)
        assert decode(None, body, form, LIMITS).signal == signal  # type: ignore[arg-type]
    assert decode(None, b"" if form == "proto" else b"{}", form, LIMITS).signal is None  # type: ignore[arg-type]


def test_spans_and_log_records_in_one_json_are_refused_when_nobody_says_which() -> None:
    assert refused(None, b'{"resourceSpans":[],"resourceLogs":[]}', "json") == "malformed"


def test_a_log_request_sent_as_traces_stores_nothing() -> None:
    assert refused("traces", logs().SerializeToString(), "proto") == "malformed"
    assert decode("traces", as_json(logs()), "json", LIMITS).spans == []


@pytest.mark.parametrize("form", FORMS)
def test_a_large_span_comes_in_many_small_steps(form: str) -> None:
    large = span(1, [(f"llm.input_messages.{n}.message.content", "x" * 50) for n in range(1000)])
    decoding = begin("traces", traces(large).SerializeToString(), "proto", LIMITS)
    counted = sum(1 for _ in decoding.count())
    steps = list(decoding.spans())
    assert (counted, decoding.total) == (0, 1)
    assert len(steps) > 10
    assert len(steps[-1].attributes) == 1000  # type: ignore[union-attr]
