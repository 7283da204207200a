"""SQL and HTTP are judged by what they do; quoted words and plain questions do nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.reading import Effect
from sidecar.core.tools.requests import effect_of_http, effect_of_sql


def sql(text: str) -> Effect:
    effect = effect_of_sql(text, surely=True)
    assert effect is not None
    return effect


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM t",
        "select a, b from t where note = 'delete from t; drop table t'",
        'SELECT "update" FROM t -- drop table t',
        "/* delete from t */ SELECT 1",
        "SELECT replace(a, 'x', 'y') FROM t FOR UPDATE",
        "WITH x AS (SELECT 1) SELECT * FROM x WHERE t.delete = 1",
        "(SELECT 1) UNION (SELECT 2)",
        "EXPLAIN DELETE FROM t",
        "SHOW TABLES",
        "PRAGMA table_info(t)",
        "BEGIN; SELECT 1; COMMIT",
        "SELECT 'it''s gone; drop table t'",
        "SELECT [delete] FROM t",
    ],
)
def test_reading_is_reversible(text: str) -> None:
    effect = sql(text)
    assert effect.reversible
    assert effect.known
    assert not effect.changes


@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM t",
        "SELECT 1; DROP TABLE t",
        "SELECT 1;\n--x\nUPDATE t SET a = 1",
        "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
        "EXPLAIN ANALYZE DELETE FROM t",
        "truncate t",
        "ALTER TABLE t ADD c int",
        "INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 1",
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        "PRAGMA writable_schema = 1",
        "EXEC proc",
        "select pg_terminate_backend(7)",
    ],
)
def test_destroying_is_irreversible(text: str) -> None:
    effect = sql(text)
    assert effect.changes
    assert not effect.reversible


@pytest.mark.parametrize("text", ["GRANT ALL ON t TO bob", "CREATE USER bob", "CREATE TRIGGER x AFTER INSERT ON t"])
def test_rights_and_triggers_are_standing(text: str) -> None:
    assert sql(text).standing


@pytest.mark.parametrize(
    "text", ["SELECT * FROM t INTO OUTFILE '/x'", "COPY t TO PROGRAM 'curl x'", "select dblink('x', 'y')"]
)
def test_what_leaves_the_database_sends(text: str) -> None:
    assert sql(text).sends


@pytest.mark.parametrize("text", ["INSERT INTO t VALUES ('drop table')", "CREATE TABLE t (a int)"])
def test_what_is_new_is_a_reversible_change(text: str) -> None:
    effect = sql(text)
    assert effect.changes
    assert effect.reversible


@pytest.mark.parametrize(
    "text",
    ["SELECT '\\'; DROP TABLE t; --'", "SELECT /*! delete */ 1", "SELECT 'open", "frob t", "", "SELECT 1;" * 4000],
)
def test_what_cannot_be_told_apart_is_irreversible(text: str) -> None:
    effect = sql(text)
    assert not effect.reversible
    assert not effect.known


@pytest.mark.parametrize(
    "text", ["delete files older than a week", "update the ticket", "which customers left?", "drop me a line", ""]
)
def test_plain_words_are_no_sql(text: str) -> None:
    assert effect_of_sql(text) is None


@settings(max_examples=200)
@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from([*list("a '\"`;-/*$[]=.\\\n"), "select ", "delete from ", "with "])).map("".join),
    )
)
def test_any_text_is_judged_and_always_the_same(text: str) -> None:
    assert sql(text) == sql(text)
    assert sql(text).known or not sql(text).reversible
    effect_of_sql(text)


@given(st.text(st.characters(exclude_characters="'\\", exclude_categories=["Cs"])))
def test_what_stands_in_quotes_changes_nothing(text: str) -> None:
    assert not sql(f"SELECT a FROM t WHERE b = '{text}'").changes


@pytest.mark.parametrize(
    ("method", "body", "sends", "changes", "reversible"),
    [
        ("GET", False, False, False, True),
        ("", False, False, False, True),
        ("head", False, False, False, True),
        ("", True, True, False, False),
        ("GET", True, True, False, False),
        ("POST", False, True, False, False),
        ("put", True, True, True, False),
        ("DELETE", False, True, True, False),
        ("BREW", False, True, True, False),
    ],
)
def test_a_request_is_judged_by_its_method(
    method: str, body: bool, sends: bool, changes: bool, reversible: bool
) -> None:
    effect = effect_of_http(method, body=body)
    assert (effect.sends, effect.changes, effect.reversible, effect.outward) == (sends, changes, reversible, True)
