"""The pages for people agree with the program: links, commands, configurations, settings, detectors, code."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml

import sidecar.agent
from scripts import make_config_page, make_coverage_page, make_detectors_page
from sidecar.cli.commands import app
from sidecar.cli.replay import cold
from sidecar.config import Config
from sidecar.control.auth import MATRIX, Tokens
from sidecar.core.pipeline import NOTICE_SEVERITY
from sidecar.core.span import LOCAL, Record
from sidecar.sources.decode import Limits, decode
from sidecar.sources.kafka_settings import KafkaSettings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(kind: str) -> Iterator[tuple[str, str]]:
    """(page, text) of every fenced block of a kind."""
    for page in PAGES:
        for info, text in FENCE.findall(page.read_text("utf-8")):
            if info.strip() == kind:
                yield name_of(page), text


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(plain.replace(" ", "-"))
    return found


# ------------------------------------------------------------ links


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_a_page_leads_somewhere(page):
    for link in LINK.findall(prose(page)):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert target.is_relative_to(ROOT), f"{link}: outside the repository"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


def test_every_page_can_be_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        waiting += [
            (page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(prose(page)) if "://" not in link
        ]
    assert [name_of(page) for page in PAGES if page not in seen] == []


# ------------------------------------------------------------ made pages


def test_the_configuration_page_is_what_the_models_say():
    assert make_config_page.PLACE.read_text("utf-8") == make_config_page.build(), "python -m scripts.make_config_page"


def test_the_detectors_page_is_what_the_detectors_say():
    made = make_detectors_page.build()
    assert make_detectors_page.PLACE.read_text("utf-8") == made, "python -m scripts.make_detectors_page"


def test_the_coverage_page_is_what_doctor_says_of_the_figures():
    made = make_coverage_page.build(make_coverage_page.figures())
    assert make_coverage_page.PLACE.read_text("utf-8") == made, "python -m scripts.make_coverage_page"


def test_the_coverage_page_has_all_pairs_and_only_figures():
    kept = make_coverage_page.figures()
    page = make_coverage_page.PLACE.read_text("utf-8")
    assert len(kept) == 44
    for pair, told in kept.items():
        rows = re.findall(rf"^\| {re.escape(pair)} \| ([^|]+) \|", page, re.MULTILINE)
        shown = [mode for row in rows for mode in row.split(", ")]
        assert {"on", "off", "default"} <= set(shown), pair
        for mode in make_coverage_page.MODES:
            assert set(told[mode]) == {"inputs", "session_at", "faults", "libraries", "conventions"}
            assert all(type(count) is int for counts in told[mode]["inputs"].values() for count in counts)
            assert all(type(count) is int for count in told[mode]["session_at"].values())


def test_the_configuration_page_has_every_setting_and_its_own_default():
    page = make_config_page.build()
    keys = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert set(Config.model_fields) <= set(keys)
    assert set(KafkaSettings.model_fields) <= set(keys)
    forwarders = page.split("## `intake.forwarders`", 1)[1].split("\n## ", 1)[0]
    assert f"| `{Config().intake.forwarders.spans_per_s}` |" in forwarders


# ------------------------------------------------------------ commands


def console_lines() -> Iterator[tuple[str, str]]:
    for page, text in blocks("console"):
        for line in text.splitlines():
            if line.startswith("$ "):
                yield page, line[2:]


def sidecar_calls() -> Iterator[tuple[str, list[str]]]:
    """Arguments of every call of our command, also where the words of a sentence name it."""
    for page, line in console_lines():
        words = shlex.split(line, comments=True)
        if "sidecar" in words:
            yield page, words[len(words) - words[::-1].index("sidecar") :]
    for page in PAGES:
        for code in re.findall(r"`sidecar ([^`]+)`", prose(page)):
            yield name_of(page), shlex.split(code)


def test_every_command_in_the_pages_exists_with_its_options():
    root = typer.main.get_command(app)
    calls = list(sidecar_calls())
    assert len(calls) > 30
    for page, arguments in calls:
        command, words = root, arguments
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{page}: sidecar {' '.join(arguments)}"
            command, words = command.commands[words[0]], words[1:]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            if word.startswith("-"):
                assert word in known | {"--help", "-h"}, f"{page}: sidecar {' '.join(arguments)}"


def test_every_make_target_in_the_pages_exists():
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"`make ([a-z-]+)`", prose(page))}
    named |= {line.split()[1] for _, line in console_lines() if line.startswith("make ")}
    assert {"demo", "test"} <= named <= targets


def test_every_module_to_run_in_the_pages_exists():
    for page in PAGES:
        for module in re.findall(r"python -m ((?:scripts|examples|benchmarks)\.\w+)", page.read_text("utf-8")):
            assert importlib.util.find_spec(module) is not None, f"{name_of(page)}: {module}"


# ------------------------------------------------------------ configurations and code


@pytest.mark.parametrize(("page", "text"), list(blocks("yaml")))
def test_every_configuration_in_the_pages_is_taken(page, text):
    Config.model_validate(yaml.safe_load(text)).sensitive.compiled()


@pytest.mark.parametrize(("page", "text"), list(blocks("yaml tokens")))
def test_every_file_of_credentials_in_the_pages_is_taken(page, text):
    assert Tokens.model_validate(yaml.safe_load(text)).tokens


@pytest.mark.parametrize(("page", "text"), list(blocks("python")))
def test_every_piece_of_code_in_the_pages_names_what_exists(page, text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("sidecar"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                inner = importlib.util.find_spec(f"{node.module}.{alias.name}") if hasattr(module, "__path__") else None
                assert inner or hasattr(module, alias.name), f"{page}: {node.module}.{alias.name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sidecar":
            assert node.attr in sidecar.agent.__all__, f"{page}: sidecar.{node.attr}"


@pytest.mark.parametrize("page", ["README.md", "docs/integrating.md"])
def test_the_ten_lines_of_the_pages_are_those_of_the_example(page):
    example = (ROOT / "examples/ten_lines.py").read_text("utf-8").split("# What gates it:\n", 1)[1].strip()
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    assert f"```python\n{example}\n```" in (ROOT / page).read_text("utf-8")


def test_the_default_policy_in_the_rules_is_the_shipped_one():
    rules = (ROOT / "docs/rules.md").read_text("utf-8")
    shown = FENCE.findall(rules.split("The shipped table:", 1)[1])[0][1]
    assert Config.model_validate(yaml.safe_load(shown)).policy.verdicts == Config().policy.verdicts


# ------------------------------------------------------------ closed lists


@pytest.mark.parametrize("notice", NOTICE_SEVERITY)
def test_every_notice_about_telemetry_is_explained(notice):
    assert f"| `{notice}` |" in (ROOT / "docs/operating.md").read_text("utf-8")


def test_every_alerting_rule_is_explained_and_no_other():
    rules = yaml.safe_load((ROOT / "dashboards/alerts.rules.yaml").read_text())
    shipped = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    page = (ROOT / "docs/operating.md").read_text("utf-8")
    explained = set(re.findall(r"\bSidecar[A-Z]\w+", page.split("## What each alert means", 1)[1].split("\n## ", 1)[0]))
    assert explained == shipped


def test_every_role_of_a_credential_is_explained():
    page = (ROOT / "docs/operating.md").read_text("utf-8").split("## Credentials", 1)[1].split("\n## ", 1)[0]
    roles = {role for allowed in MATRIX.values() for role in allowed} - {"local"}
    assert {role for role in roles | {"forwarder"} if f"| `{role}` |" not in page} == set()


def test_the_span_in_the_pages_is_an_act_that_can_be_judged_whole():
    [(_, text)] = blocks("json")
    now_ns = 1_800_000_000 * 10**9
    spans = decode("traces", text.replace("NOW", str(now_ns)).encode(), "json", Limits()).spans
    core = cold("guard")
    for span in spans:
        outcome = core.feed(Record(span, LOCAL, now_ns), now_ns)
    [decision] = outcome.decisions
    assert (decision.session.id, decision.agent.role, decision.tool) == ("order-4711", "order-bot", "send_mail")
    assert decision.unscored == ()
