"""The configuration as a whole: safe without a file, told key by key, the same when it is read back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from sidecar.config import Config, read
from sidecar.errors import ConfigError
from sidecar.settings import Bytes, Count, Seconds, descriptions
from sidecar.sources.otlp import is_loopback, split_address
from sidecar.yaml import dotted, parse

SECONDS, BYTES, COUNT = TypeAdapter(Seconds), TypeAdapter(Bytes), TypeAdapter(Count)


def models(annotation: Any = Config) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation)
    for inner in getattr(annotation, "__args__", ()):
        yield from models(inner)


MODELS = sorted(set(models()), key=lambda model: model.__name__)


def written(folder: Path, text: str) -> Path:
    file = folder / "sidecar.yaml"
    file.write_text(text, encoding="utf-8")
    return file


# ---------------------------------------------------------------- without a word


@pytest.mark.parametrize("text", ["", "# all is commented out\n", "{}", "---\n", "policy:\notlp:\n"])
def test_a_file_that_says_nothing_is_the_defaults(tmp_path: Path, text: str) -> None:
    assert read(written(tmp_path, text)) == Config() == read(None)


def test_the_defaults_open_nothing_beyond_this_machine() -> None:
    config = Config()
    addresses = [
        config.otlp.grpc, config.otlp.http, config.control.agents, config.control.operators, config.observe.http,
    ]  # fmt: skip
    assert [address for address in addresses if address and not is_loopback(split_address(address)[0])] == []
    assert config.control.operators is None
    assert not config.otlp.anonymous
    assert not config.gate.fail_open
    assert not config.observe.exposed
    assert config.policy.posture == "guard"
    assert config.warnings() == []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_setting_says_what_it_is_and_no_other_is_taken(model: type[BaseModel]) -> None:
    says = descriptions(model)
    silent = [name for name in model.model_fields if not says.get(name)]
    assert silent == []
    assert model.model_config.get("extra") == "forbid"
    assert model.model_config.get("frozen") is True
    with pytest.raises(ValidationError) as refused:
        model.model_validate({"no such key": 1})
    assert "extra_forbidden" in [error["type"] for error in refused.value.errors()]


def test_settings_cannot_be_changed_once_they_are_read() -> None:
    with pytest.raises((ValidationError, PydanticUserError)):
        Config().gate.fail_open = True  # type: ignore[misc]


def test_what_is_shown_can_be_read_back(tmp_path: Path) -> None:
    given = (
        "gate: {hold: 20m}\npolicy: {roles: [{role: 'a-*', posture: enforce}], modes: {leverage: hold}}\n"
        "tools: {overrides: {refund: {reversible: false}}}\norganisation: {domains: [corp.example]}\n"
        "kafka: [{bootstrap_servers: ['broker:9092']}]\notlp: {http: null, max_request: 1MiB}\n"
        "owners: [{role: a-1, owner: ann}]\nsensitive: {patterns: [{name: deal, regex: 'project [a-z]{4} terms'}]}\n"
    )
    config = read(written(tmp_path, given))
    again = read(written(tmp_path, yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config != Config()


def test_who_owns_an_agent_is_the_first_that_fits() -> None:
    owners = [
        {"role": "billing-*", "owner": "ann"},
        {"role": "billing-eu", "owner": "bob"},
        {"role": "x", "owner": "c"},
    ]
    config = Config.model_validate({"owners": owners})
    assert [config.owner_of(role) for role in ("billing-eu", "x", "nobody")] == ["ann", "c", ""]


# ---------------------------------------------------------------- how people write


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("5s", 5),
        ("10m", 600),
        ("24h", 86_400),
        ("30d", 30 * 86_400),
        (5, 5),
        (0.5, 0.5),
        ("1.5h", 5400),
    ],
)
def test_durations_have_units(text: Any, seconds: float) -> None:
    assert SECONDS.validate_python(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64KiB", 2**16), ("16MiB", 2**24), ("2GiB", 2**31), ("1kB", 1000), ("7B", 7), (7, 7), ("0.5KiB", 512)],
)
def test_sizes_have_units(text: Any, size: int) -> None:
    assert BYTES.validate_python(text) == size


@pytest.mark.parametrize(
    "text", ["5 s", "5", "s", "", " 5s", "5s ", "5S", "-5s", "5sec", "1e400s", "nans", "0x5s", True, None, [5]]
)
def test_odd_durations_are_refused(text: Any) -> None:
    with pytest.raises(ValidationError):
        SECONDS.validate_python(text)


@pytest.mark.parametrize("text", ["1.5B", "5 MiB", "5mib", "-1", -1, 0.5, "1e30GiB", True, None])
def test_odd_sizes_are_refused(text: Any) -> None:
    with pytest.raises(ValidationError):
        BYTES.validate_python(text)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.binary()))
def test_whatever_is_written_is_a_number_within_its_range_or_refused(value: Any) -> None:
    for adapter, most in ((SECONDS, 10 * 366 * 86_400), (BYTES, 2**50), (COUNT, 10**9)):
        try:
            found = adapter.validate_python(value)
        except ValidationError:
            continue
        assert 0 <= found <= most


# ---------------------------------------------------------------- YAML


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse(text, "f.yaml")


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Z"))),
)  # fmt: skip


def _nested(inner: Any) -> Any:
    return st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text("abc", min_size=1), inner, max_size=4))


@given(st.recursive(PLAIN, _nested, max_leaves=12))
def test_json_is_read_as_what_it_says(value: Any) -> None:
    assert parse(json.dumps(value, ensure_ascii=False)) == value


@pytest.mark.parametrize(
    ("place", "path"),
    [((), ""), (("a",), "a"), (("policy", "roles", 0, "role"), "policy.roles[0].role"), ((0, "a"), "[0].a")],
)
def test_places_are_told_as_paths(place: tuple[str | int, ...], path: str) -> None:
    assert dotted(place) == path


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_value_is_null(value: str) -> None:
    assert parse(f"a:{value}\nb: x") == {"a": None, "b": "x"}
