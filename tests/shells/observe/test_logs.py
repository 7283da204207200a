"""Log lines: one a record, no content, no secrets, nothing that a terminal or a parser would obey."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigError, SpanError, StorageError
from sidecar.observe import logs
from sidecar.observe.logs import CONTENT, LONGEST, configure, words
from sidecar.observe.settings import ObserveSettings
from tests.shells.observe.test_metrics import HOSTILE

LOG = logging.getLogger("sidecar.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is the process's own; a test gives it back as it was."""
    names = ["", "sidecar", "sidecar.test", "kafka", "py.warnings"]
    before = {name: logging.getLogger(name).level for name in names}
    handlers = logging.getLogger().handlers[:]
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger().handlers[:] = handlers
    logging.captureWarnings(False)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_object_on_one_line():
    configure(stream=(stream := io.StringIO()))
    LOG.warning("a %s was refused", "span", extra={"reason": "too_deep", "spans": 3, "share": 0.5, "names": ["a", "b"]})
    (line,) = lines(stream)
    assert line.pop("at", "").endswith("Z")  # type: ignore[attr-defined]
    assert line == {
        "level": "warning", "logger": "sidecar.test", "message": "a span was refused", "reason": "too_deep",
        "spans": 3, "share": 0.5, "names": ["a", "b"],
    }  # fmt: skip


def test_a_person_at_a_terminal_gets_a_line_to_read():
    configure(stream=(stream := Terminal()))
    LOG.warning("started", extra={"doors": 2})
    assert stream.getvalue()[12:] == " warning  started doors=2\n"
    configure(ObserveSettings(log_format="json"), stream=(stream := Terminal()))
    LOG.warning("started")
    assert lines(stream)


def test_configuring_again_takes_the_place_of_the_first():
    configure(stream=(first := io.StringIO()))
    configure(stream=(second := io.StringIO()))
    LOG.warning("once")
    assert (first.getvalue(), len(lines(second))) == ("", 1)


@pytest.mark.parametrize("name", sorted(CONTENT))
@pytest.mark.parametrize("form", ["json", "text"])
def test_fields_that_hold_content_are_left_out(name, form):
    configure(ObserveSettings(log_format=form), stream=(stream := io.StringIO()))
    LOG.warning("an act", extra={name: "transfer the fund", name.upper(): "transfer the fund", "row": 4})
    said = stream.getvalue()
    assert "fund" not in said
    assert "row" in said
    assert "withheld" in said


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("form", ["json", "text"])
def test_hostile_text_is_inert_wherever_it_stands(form, text):
    """P14: no raw control byte, one line a record."""
    configure(ObserveSettings(log_format=form), stream=(stream := io.StringIO()))
    LOG.warning("came from %s", text, extra={"peer": text, "list": [text, [text]], text[:20] or "x": 1})
    said = stream.getvalue()
    assert said.endswith("\n")
    assert said[:-1].isprintable()
    assert len(said) < 8 * LONGEST
    if form == "json":
        assert lines(stream)[0]["level"] == "warning"


@given(st.text(), st.one_of(st.text(), st.floats(), st.integers(), st.binary(), st.none(), st.lists(st.text())))
def test_any_record_is_one_line_that_can_be_read(message, value):
    for formatter in (logs.Json(), logs.Text()):
        record = logging.makeLogRecord({"msg": message, "name": "sidecar", "levelname": "INFO", "value": value})
        said = formatter.format(record)
        assert said.isprintable()
        if isinstance(formatter, logs.Json):
            assert set(json.loads(said)) >= {"at", "level", "logger", "message"}


@pytest.mark.parametrize(
    ("told", "hidden"),
    [
        ("password=hunter22", "hunter22"),
        ('{"token": "abcd.efgh"}', "abcd.efgh"),
        ("Authorization: Bearer abc123def", "abc123def"),
        ("authorization: Basic YWxhZGRpbg==", "YWxhZGRpbg"),
        ("bearer s3cr3ts3cr3t", "s3cr3ts3cr3t"),
        ("api_key = sk-123456", "sk-123456"),
        ("postgresql://amy:pa55word@db/x", "pa55word"),
        ("kafka://u:pa55@h and https://v:pa66@i", "pa66"),
    ],
)
def test_what_looks_like_a_secret_is_not_said(told, hidden):
    assert hidden not in words(told)
    assert logs.WITHHELD in words(told)


@pytest.mark.parametrize("told", ["the token bucket is full", "token: a", "see https://host/path@v2", "bearer of news"])
def test_what_does_not_is(told):
    assert words(told) == told


def test_an_exception_is_told_by_its_kind_and_place_not_by_its_words():
    configure(stream=(stream := io.StringIO()))
    for error in (ValueError("transfer the fund"), SpanError("malformed", "transfer the fund"), KeyError("fund")):
        try:
            raise error
        except Exception:
            LOG.exception("it went wrong")
    assert "fund" not in stream.getvalue()
    first = lines(stream)[0]
    assert first["error"] == "ValueError"
    assert first["trail"] == [first["trail"][0]]  # type: ignore[index]
    assert "observe/test_logs.py:" in first["trail"][0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("unknown", key="otlp.grcp"), "ConfigError: otlp.grcp: unknown"),
        (StorageError("control.db: disk I/O error"), "StorageError: control.db: disk I/O error"),
        (FileNotFoundError(2, "No such file or directory", "x"), "FileNotFoundError: No such file or directory"),
    ],
)
def test_words_that_are_ours_or_the_systems_are_kept(error, said):
    assert logs.error_words(error) == said


def test_levels_are_the_operators_and_libraries_only_warn():
    settings = ObserveSettings(log_level="info", log_levels={"sidecar.test": "debug", "kafka": "error"})
    configure(settings, stream=(stream := io.StringIO()))
    LOG.debug("1")
    logging.getLogger("sidecar.other").debug("no")
    logging.getLogger("sidecar.other").info("2")
    logging.getLogger("kafka").warning("no")
    logging.getLogger("uvicorn.error").info("no")
    logging.getLogger("uvicorn.error").warning("3")
    assert [line["message"] for line in lines(stream)] == ["1", "2", "3"]


def test_a_mistaken_record_is_told_all_the_same():
    logging.getLogger().handlers.clear()  # pytest's own would raise
    configure(stream=(stream := io.StringIO()))
    LOG.warning("%d of %d", "transfer")

    class Unspeakable:
        def __str__(self) -> str:
            raise RuntimeError("transfer the fund")

    LOG.warning("so", extra={"what": Unspeakable(), "much": 10**6000})
    first, second = lines(stream)
    assert first["message"] == "%d of %d"
    assert (second["what"], second["much"]) == ("Unspeakable", "int")


def test_a_broken_standard_error_says_nothing_of_the_record(capsys):
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    configure(stream=Broken())
    LOG.warning("transfer the fund")
    assert capsys.readouterr() == ("", "")
