"""What is wrong in a configuration stops the start and names file, key and what would be right: rows 91-97, 99, 102."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from sidecar.config import Config, read
from sidecar.core.tools import ToolCatalogue
from sidecar.errors import ConfigError
from sidecar.yaml import MAX_BYTES, parse

CYRILLIC = "send_em\N{CYRILLIC SMALL LETTER A}il"


def taken(folder: Path, text: str) -> Config:
    file = folder / "sidecar.yaml"
    file.write_text(text, encoding="utf-8")
    return read(file)


def refusal(folder: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        taken(folder, text)
    assert str(refused.value).startswith(str(folder / "sidecar.yaml")), "the file is named"
    assert len(str(refused.value)) < 1000
    return refused.value


def case(row: str, text: str, key: str, words: str) -> Any:
    return pytest.param(text, key, words, id=f"row {row}, {text[:40]!a}")


MISSPELT = [
    ("gate: {fail_mod: open}", "gate.fail_mod", "'fail_open'"),
    ("polcy: {}", "polcy", "'policy'"),
    ("policy: {roles: [{rol: x, posture: guard}]}", "policy.roles[0].rol", "'role'"),
    ("kafka: [{bootstrap_server: [a:1]}]", "kafka[0].bootstrap_server", "'bootstrap_servers'"),
    ("control: {credentials: {fle: x}}", "control.credentials.fle", "'file'"),
    ("tools: {overrides: {refund: {reversable: true}}}", "tools.overrides.refund.reversable", "'reversible'"),
    ("intake: {rates: {spans_per_sec: 3}}", "intake.rates.spans_per_sec", "'spans_per_s'"),
    ("kafka: [{bootstrap_servers: [a:1], topics: {t: {signl: logs}}}]", "kafka[0].topics.t.signl", "'signal'"),
    ("policy: {modes: {leverge: alert}}", "policy.modes", "'leverage'"),
    ("policy: {verdicts: [{detector: leverge, action: hold}]}", "policy.verdicts[0]", "'leverage'"),
    ("detectors: {novel_recipient: {warmup: 3}}", "detectors.novel_recipient", "'warm_up'"),
    ("detectors: {novel_recipients: {}}", "detectors", "'novel_recipient'"),
]


@pytest.mark.parametrize(("text", "key", "suggestion"), MISSPELT, ids=[f"row 91, {text}" for text, _, _ in MISSPELT])
def test_row_91_a_misspelt_key_is_refused_with_the_one_that_was_meant(
    tmp_path: Path, text: str, key: str, suggestion: str
) -> None:
    error = refusal(tmp_path, text)
    assert key in (error.key, error.message.partition(":")[0])
    assert f"did you mean {suggestion}?" in error.message


def test_row_91_a_key_like_no_other_is_refused_too(tmp_path: Path) -> None:
    assert refusal(tmp_path, "zzz: 1").message == "there is no such setting"


def test_row_91_of_several_mistakes_one_is_named_and_the_others_counted(tmp_path: Path) -> None:
    assert refusal(tmp_path, "gate: {hold: 1s, a: 1, b: 2}").message.endswith("(and 2 more)")


# ---------------------------------------------------------------- the form

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        case("92", "gate: {hold: 20s}\ngate: {hold: 30s}", "", "line 2, column 1: 'gate' is there twice"),
        case("92", "gate: {hold: 20s, hold: 30s}", "", "'hold' is there twice"),
        case("92", "gate: !!python/object:os.system {}", "", "line 1, column 7: tags are not taken"),
        case("92", "!!python/object/apply:os.system ['id']", "", "tags are not taken"),
        case("92", "gate: !mine {}", "", "tags are not taken"),
        case("92", LAUGHS, "", "too many aliases"),
        case("92", "x: " + "[" * 200 + "]" * 200, "", "nested too deeply"),
        case("92", "x: " + "[" * 100_000, "", "nested too deeply"),
        case("92", "base: &b {hold: 20s}\ngate:\n  <<: *b", "gate.<<", "no such setting"),
        case("92", "otlp: {connections: 0o17}", "otlp.connections", "valid integer"),
        case("92", "otlp: {connections: 0x10}", "otlp.connections", "valid integer"),
        case("92", "otlp: {connections: 1:30}", "otlp.connections", "valid integer"),
        case("92", "gate: {hold: 1:30}", "gate.hold", "for instance 5s"),
        case("92", "gate: {hold: 1_000}", "gate.hold", "for instance 5s"),
        case("92", "? [a]\n: b", "", "a key must be a text"),
        case("92", "- a", "", "expected a mapping of settings"),
        case("92", "just words", "", "expected a mapping of settings"),
        case("92", "gate: [", "", "line 1"),
        case("92", "\tgate: {}", "", "line 1, column 1"),
        case("92", "gate: {}\n---\ngate: {}", "", "another document"),
        case("92", "gate: {hold: " + "9" * 5000 + "}", "", "is no YAML"),
    ],
)
def test_row_92_yaml_that_could_surprise_or_harm_is_refused(tmp_path: Path, text: str, key: str, words: str) -> None:
    error = refusal(tmp_path, text)
    assert (error.key, words in error.message) == (key, True), error


def test_row_92_words_that_are_booleans_elsewhere_are_typed_by_the_setting(tmp_path: Path) -> None:
    config = taken(tmp_path, "otlp: {anonymous: no}\nowners: [{role: no, owner: on}, {role: off, owner: yes}]")
    assert config.otlp.anonymous is False
    assert [(entry.role, entry.owner) for entry in config.owners] == [("no", "on"), ("off", "yes")]
    assert parse("[no, on, y, null, ~, 1:30, 0o7, 1e3, true]") == [
        "no",
        "on",
        "y",
        None,
        None,
        "1:30",
        "0o7",
        1e3,
        True,
    ]


def test_row_92_few_aliases_are_fine(tmp_path: Path) -> None:
    assert taken(tmp_path, "gate: {hold: &h 20s}\ncontrol: {credentials: {look: *h}}").control.credentials.look == 20


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"gate: \xff", "is not UTF-8 (byte 6)"), (b"\0", "is no YAML"), (b"x" * (MAX_BYTES + 1), "is larger than")],
    ids=["not UTF-8", "NUL", "too large"],
)
def test_a_file_that_is_no_text_of_a_fair_size_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "sidecar.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read(file)
    assert (refused.value.file, words in refused.value.message) == (str(file), True), refused.value


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError) as refused:
            read(path)
        assert refused.value.file == str(path)


# ---------------------------------------------------------------- numbers


def numbers(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str]]:
    """(model, field) of every setting that is a number, in all models that `model` holds."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, int | float) and not isinstance(default, bool) and name != "version":
            yield model, name
        yield from (found for inner in _models(field.annotation) for found in numbers(inner))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


NUMBERS = sorted(set(numbers(Config)), key=lambda found: (found[0].__name__, found[1]))


@pytest.mark.parametrize(("model", "name"), NUMBERS, ids=[f"row 93, {m.__name__}.{n}" for m, n in NUMBERS])
def test_row_93_every_number_has_a_range(model: type[BaseModel], name: str) -> None:
    for value in (-1, -0.5, 10**18, 1e300, math.nan, math.inf, -math.inf, "5 s", "", "many", [5], {}, "1e400s"):
        with pytest.raises(ValidationError) as refused:
            model.model_validate({name: value})
        mine = [error for error in refused.value.errors() if error["loc"][:1] == (name,)]
        assert mine, (name, value)
        assert mine[0]["msg"]


def test_there_are_numbers_to_try() -> None:
    assert len(NUMBERS) > 40


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        case("93", "otlp: {connections: 0}", "otlp.connections", "greater than or equal to 1"),
        case("93", "otlp: {connections: 1000000000000000000}", "otlp.connections", "less than or equal to 1000000000"),
        case("93", "otlp: {connections: 1.5}", "otlp.connections", "valid integer"),
        case("93", "storage: {telemetry_max_age_s: 0}", "storage.telemetry_max_age_s", "greater than 0"),
        case("93", "gate: {hold: .nan}", "gate.hold", "must be finite"),
        case("93", "gate: {hold: 15 m}", "gate.hold", "units ms, s, m, h, d, for instance 5s"),
        case("93", "gate: {hold: true}", "gate.hold", "expected a number with a unit"),
        case("93", "intake: {in_flight: 10EB}", "intake.in_flight", "units B, KiB, MiB, GiB"),
        case("93", "detectors: {novel_recipient: {warm_up: -1}}", "detectors.novel_recipient", "warm_up is 0 to"),
        case(
            "93", "detectors: {novel_recipient: {capacity: 1000000000000000000}}", "detectors.novel_recipient", "1 to"
        ),
        case(
            "93", "detectors: {novel_recipient: {warm_up: .nan}}", "detectors.novel_recipient.warm_up", "whole number"
        ),
        case("93", "detectors: {half_space_trees: {alpha: 2}}", "detectors.half_space_trees", "0.001 to 1"),
        case("93", "detectors: {half_space_trees: {alpha: .nan}}", "detectors.half_space_trees", "0.001 to 1"),
        case("93", "detectors: {half_space_trees: {waiting: 0}}", "detectors.half_space_trees", "waiting is 1 to"),
        case(
            "93", "detectors: {half_space_trees: {waiting: yes}}", "detectors.half_space_trees.waiting", "whole number"
        ),
        case("94", "control: {lease: 100ms}", "control.lease", "greater than or equal to 0.3"),
        case("94", "control: {grant_life: 11m}", "control.grant_life", "less than or equal to 60"),
        case("94", "intake: {in_flight: 1MiB}", "", "intake.in_flight is smaller than otlp.max_request"),
        case("94", "otlp: {buffered: 17MiB}", "", "otlp.buffered is smaller than twice otlp.max_request"),
        case("94", "storage: {low_water_bytes: 1MiB}", "storage", "must not be below ballast_bytes"),
    ],
)
def test_rows_93_and_94_name_the_key_and_the_range(tmp_path: Path, text: str, key: str, words: str) -> None:
    error = refusal(tmp_path, text)
    assert (error.key, words in error.message) == (key, True), error


def test_row_93_numbers_with_units_are_what_they_say(tmp_path: Path) -> None:
    config = taken(tmp_path, "gate: {hold: 15m}\nstorage: {telemetry_max_age_s: 250ms, telemetry_max_bytes: 64MiB}")
    assert (config.gate.hold, config.storage.telemetry_max_age_s) == (900, 0.25)
    assert config.storage.telemetry_max_bytes == 64 * 2**20


def test_row_94_heartbeats_always_come_three_times_a_lease(tmp_path: Path) -> None:
    """They have no setting of their own that could be longer."""
    from sidecar.control.settings import ControlSettings

    assert not [name for name in ControlSettings.model_fields if "heartbeat" in name]


# ---------------------------------------------------------------- patterns


def pattern(regex: str) -> str:
    return "sensitive: {patterns: [{name: mine, regex: '" + regex + "'}]}"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        case("95", pattern("(?<=a)b"), "sensitive.patterns (mine)", "only (...) and (?:...) here"),
        case("95", pattern("(a"), "sensitive.patterns (mine)", "not closed"),
        case("95", pattern("(a{1,999}){1,999}"), "sensitive.patterns (mine)", "RE2 refuses it"),
        case("95", pattern(""), "sensitive.patterns[0].regex", "at least 1 character"),
        case("95", pattern("a*"), "sensitive.patterns (mine)", "matches the empty text"),
        case("95", pattern(".*"), "sensitive.patterns (mine)", "matches the empty text"),
        case("95", pattern(".+"), "sensitive.patterns (mine)", "matches nearly every text"),
        case("95", pattern("[^q]|q"), "sensitive.patterns (mine)", "matches nearly every text"),
        case("95", pattern("[a-z ]"), "sensitive.patterns (mine)", "matches nearly every text"),
        case("95", pattern("x" * 4097), "sensitive.patterns[0].regex", "at most 4096 characters"),
        case("95", pattern("ab$"), "sensitive.patterns (mine)", "write \\z instead of $"),
    ],
)
def test_row_95_a_pattern_that_cannot_be_judged_by_is_refused_by_name(
    tmp_path: Path, text: str, key: str, words: str
) -> None:
    error = refusal(tmp_path, text)
    assert (error.key, words in error.message) == (key, True), error


def test_row_95_a_pattern_of_ten_megabytes_is_refused_with_its_file(tmp_path: Path) -> None:
    assert "is larger than" in refusal(tmp_path, pattern("x" * MAX_BYTES)).message


# ---------------------------------------------------------------- what refers to something


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        case("96", "policy: {verdicts: [{detector: nobody, action: hold}]}", "", "no detector is called 'nobody'"),
        case("96", "policy: {modes: {nobody: alert}}", "", "no detector is called 'nobody'"),
        case("96", "policy: {verdicts: [{family: nobody, action: hold}]}", "policy.verdicts[0].family", "'leverage'"),
        case("96", "policy: {verdicts: [{severity: bad, action: hold}]}", "policy.verdicts[0].severity", "'critical'"),
        case("96", "policy: {verdicts: [{action: kill}]}", "policy.verdicts[0].action", "'pause'"),
        case("96", "detectors: {nobody: {}}", "", "no detector is called 'nobody'"),
        case("96", "detectors: {half_space_trees: {features: [a]}}", "", "no such option: 'features'"),
        case(
            "96",
            "sensitive: {patterns: [{name: x, regex: abc}, {name: x, regex: abd}]}",
            "",
            "two have the same name: x",
        ),
        case(
            "96",
            "kafka: [{bootstrap_servers: [a:1]}, {bootstrap_servers: [b:1]}]",
            "",
            "two sources have the same name",
        ),
    ],
)
def test_row_96_what_refers_to_nothing_or_is_there_twice_is_refused(
    tmp_path: Path, text: str, key: str, words: str
) -> None:
    error = refusal(tmp_path, text)
    assert (error.key, words in error.message) == (key, True), error


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "policy: {verdicts: [{action: hold}, {severity: high, action: pause}]}",
            "policy.verdicts[1]: never reached, verdicts[0] matches all that it does",
        ),
        ("policy: {verdicts: [{detector: 'no_*', action: hold}]}", "policy.verdicts[0]: no detector matches 'no_*'"),
        (
            "policy: {roles: [{role: '*', posture: guard}, {role: a, posture: observe}]}",
            "policy.roles[1]: never reached, policy.roles[0] matches all that it does",
        ),
        (
            "owners: [{role: 'a-*', owner: x}, {role: b, owner: x}, {role: a-1, owner: y}]",
            "owners[2]: never reached, owners[0] matches all that it does",
        ),
    ],
    ids="row 96, {}".format,
)
def test_row_96_what_can_never_be_reached_is_warned_of(tmp_path: Path, text: str, warning: str) -> None:
    assert taken(tmp_path, text).warnings() == [warning]


def test_row_96_what_can_be_reached_is_not_warned_of(tmp_path: Path) -> None:
    text = (
        "policy: {roles: [{role: a-1, posture: guard}, {role: 'a-*', posture: observe}, {role: '*', posture: enforce}]}"
    )
    assert taken(tmp_path, text).warnings() == []


# ---------------------------------------------------------------- what would open the gate


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        case("97", "gate: {fail_open: true}", "gate", "fail_open needs i_accept_fail_open_for"),
        case("97", "gate: {fail_open: true, i_accept_fail_open_for: []}", "gate", "fail_open needs"),
        case("97", "gate: {i_accept_fail_open_for: [send_mail]}", "gate", "and the other way round"),
        case("97", "gate: {fail_open: true, i_accept_fail_open_for: ['*']}", "gate", "takes no patterns"),
        case(
            "97", "gate: {fail_open: true, i_accept_fail_open_for: [send_mail, 'send_*']}", "gate", "takes no patterns"
        ),
        case("99", "tools: {overrides: {'*': {reversible: true}}}", "tools", "fits every tool"),
        case("99", "tools: {overrides: {'?*': {reversible: true}}}", "tools", "fits every tool"),
        case(
            "102",
            "tools: {overrides: {" + CYRILLIC + ": {reversible: true}}}",
            f"tools.overrides.{CYRILLIC}.[key]",
            "printable ASCII",
        ),
        case(
            "102",
            "tools: {overrides: {'send_email ': {reversible: true}}}",
            "tools.overrides.send_email .[key]",
            "printable ASCII",
        ),
        case(
            "102",
            "tools: {trusted_servers: ['mail\\u200b']}".replace("'", '"'),
            "tools.trusted_servers[0]",
            "printable ASCII",
        ),
        case(
            "102",
            "gate: {fail_open: true, i_accept_fail_open_for: [" + CYRILLIC + "]}",
            "gate.i_accept_fail_open_for[0]",
            "printable ASCII",
        ),
    ],
)
def test_rows_97_and_102_what_would_open_the_gate_by_mistake_is_refused(
    tmp_path: Path, text: str, key: str, words: str
) -> None:
    error = refusal(tmp_path, text)
    assert (error.key, words in error.message) == (key, True), error


def test_row_97_what_is_accepted_is_warned_of(tmp_path: Path) -> None:
    (warning,) = taken(tmp_path, "gate: {fail_open: true, i_accept_fail_open_for: [send_mail]}").warnings()
    assert warning == "gate.fail_open: irreversible acts of send_mail run whenever the sidecar does not answer"


@pytest.mark.parametrize(
    "text",
    ["", "policy: {}", "policy:", "policy: {verdicts: []}", "tools:", "tools: {overrides: {}}"],
    ids="row 99, {!r}".format,
)
def test_row_99_under_an_empty_policy_unknown_tools_stay_irreversible(tmp_path: Path, text: str) -> None:
    catalogue: ToolCatalogue = taken(tmp_path, text).tools.catalogue()
    for name in ("frobnicate", "qz7", "get_frobnicate_and_wipe"):
        assert not catalogue.effect(name, {}).reversible, name


@pytest.mark.parametrize(
    "name", [CYRILLIC, "send_email ", "re\N{ZERO WIDTH SPACE}ad_file", "read_fi\N{LATIN SMALL LIGATURE FI}le"]
)
def test_row_102_a_tool_that_only_looks_like_a_known_one_is_irreversible(name: str) -> None:
    assert not ToolCatalogue().effect(name, {}).reversible
