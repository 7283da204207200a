"""A door opens beyond this machine only when it is guarded or when that was asked for, and with TLS that holds."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sidecar.core.span import LOCAL, Speaker
from sidecar.errors import ConfigError, ControlError
from sidecar.settings import descriptions
from sidecar.sources.otlp import OtlpSettings, TlsSettings, identify, is_loopback, read_tls, split_address
from tests.shells.otlp.certificates import DAY, Authority
from tests.shells.otlp.conftest import OpenDoor
from tests.shells.otlp.kit import FakeDoorman

NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
TLS = {"certificate": "c.pem", "key": "k.pem"}


@pytest.mark.parametrize(
    "address", ["0.0.0.0:4317", "[::]:4317", "192.0.2.1:4317", "sidecar.example:4317", "[::ffff:192.0.2.1]:1"]
)
@pytest.mark.parametrize("door", ["grpc", "http"])
def test_beyond_this_machine_tls_or_anonymous_is_asked_for(address: str, door: str) -> None:
    with pytest.raises(ValidationError, match="beyond this machine"):
        OtlpSettings(**{door: address})
    assert getattr(OtlpSettings(**{door: address}, anonymous=True), door) == address
    assert getattr(OtlpSettings(**{door: address}, tls=TLS), door) == address


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "localhost:4317", "[::1]:4317", "127.3.2.1:4317", "[::ffff:127.0.0.1]:1"]
)
def test_on_loopback_nothing_is_asked_for(address: str) -> None:
    assert OtlpSettings(grpc=address, http=address).tls is None


def test_the_defaults_are_the_ports_of_otlp_on_loopback() -> None:
    settings = OtlpSettings()
    assert (settings.grpc, settings.http) == ("127.0.0.1:4317", "127.0.0.1:4318")
    assert settings.max_request == 16 * 2**20


@pytest.mark.parametrize(
    "told",
    [
        {"grpc": "4317"}, {"grpc": "127.0.0.1"}, {"grpc": "127.0.0.1:99999"}, {"grpc": "::1:4317"}, {"grpc": ":4317"},
        {"grpc": "127.0.0.1:x"}, {"grpc": "[zz]:1"}, {"http": "127.0.0.1:-1"}, {"max_request": "0"},
        {"max_request": -1},
        {"connections": 0}, {"body_timeout": "0s"}, {"body_timeout": float("nan")}, {"header_timeout": "5 s"},
        {"max_requst": "1MiB"}, {"tls": {"certificate": "c"}}, {"anonymous": "perhaps"},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OtlpSettings(**told)


def test_every_setting_says_what_it_is() -> None:
    for model in (OtlpSettings, TlsSettings):
        assert list(descriptions(model)) == list(model.model_fields)


def test_addresses_are_split_into_host_and_port() -> None:
    assert split_address("[::1]:4317") == ("::1", 4317)
    assert split_address("sidecar.example:80") == ("sidecar.example", 80)


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("", False),
        ("127.1", False),
    ],
)
def test_loopback_is_told_from_the_address(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer


def who(authorization: list[str], host: str, *, anonymous: bool = False) -> Speaker:
    alice = Speaker("agent:alice", "authenticated", "alice")
    return identify(FakeDoorman({"good": alice}), authorization, host=host, anonymous=anonymous)


def test_row_26_beyond_loopback_nobody_is_let_in_without_a_token_unless_anonymous() -> None:
    assert who([], "127.0.0.1") == LOCAL
    with pytest.raises(ControlError):
        who([], "192.0.2.1")
    assert who([], "192.0.2.1", anonymous=True) == LOCAL
    assert who(["Bearer good"], "192.0.2.1", anonymous=True).grade == "authenticated"
    for token in ("Bearer bad", "good", "Bearer"):
        with pytest.raises(ControlError) as refused:
            who([token], "192.0.2.1", anonymous=True)
        assert refused.value.code == "UNAUTHENTICATED"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, now=NOW)


def tls(certificate: Path, key: Path, **more: Path) -> TlsSettings:
    return TlsSettings(certificate=certificate, key=key, **more)


def test_a_certificate_is_read_with_its_names(authority: Authority) -> None:
    assert read_tls(tls(*authority.issue("Sidecar.example")), NOW).names == {"sidecar.example"}


@pytest.mark.parametrize("now", [NOW - 2 * DAY, NOW + 2 * DAY])
def test_a_certificate_that_is_not_valid_now_is_refused(authority: Authority, now: datetime.datetime) -> None:
    with pytest.raises(ConfigError, match="valid from") as refused:
        read_tls(tls(*authority.issue("x")), now)
    assert refused.value.key == "tls.certificate"


def test_an_authority_that_is_not_valid_now_is_refused(authority: Authority, tmp_path: Path) -> None:
    old = Authority(tmp_path, "old", now=NOW - 9 * DAY)
    with pytest.raises(ConfigError, match="valid from") as refused:
        read_tls(tls(*authority.issue("x"), client_ca=old.path), NOW)
    assert refused.value.key == "tls.client_ca"


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602])
def test_a_key_that_everybody_can_read_or_write_is_refused(authority: Authority, mode: int) -> None:
    certificate, key = authority.issue("x")
    key.chmod(mode)
    with pytest.raises(ConfigError, match="everybody") as refused:
        read_tls(tls(certificate, key), NOW)
    assert "PRIVATE" not in str(refused.value)
    key.chmod(0o640)
    read_tls(tls(certificate, key), NOW)


def test_files_that_are_missing_or_something_else_are_named(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("x")
    with pytest.raises(ConfigError, match=r"tls\.key"):
        read_tls(tls(certificate, tmp_path / "none"), NOW)
    with pytest.raises(ConfigError, match="not a PEM certificate"):
        read_tls(tls(key, key), NOW)
    with pytest.raises(ConfigError, match="does not belong"):
        read_tls(tls(certificate, authority.issue("y")[1]), NOW)


async def test_an_address_that_is_taken_is_an_error(open_grpc: OpenDoor, open_http: OpenDoor) -> None:
    for opener in (open_grpc, open_http):
        first = await opener()
        taken = f"127.0.0.1:{first.port}"
        with pytest.raises(OSError, match=r"(?i)address already in use|cannot listen"):
            await opener(grpc=taken, http=taken)
