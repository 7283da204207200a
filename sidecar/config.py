"""The configuration file: composes every component's settings and checks the whole before the first span."""

from __future__ import annotations

import difflib
import inspect
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from sidecar.control.settings import ControlSettings
from sidecar.core.detectors import SHIPPED
from sidecar.core.text.globs import fits
from sidecar.core.text.scan import Pattern, check
from sidecar.core.tools.settings import PlainName, ToolSettings
from sidecar.core.triage import policy
from sidecar.core.triage.policy import PolicyDocument
from sidecar.errors import ConfigError
from sidecar.observe.settings import ObserveSettings
from sidecar.settings import Bytes, Seconds, Settings
from sidecar.sources.intake import IntakeSettings
from sidecar.sources.kafka_settings import KafkaSettings
from sidecar.sources.otlp import OtlpSettings
from sidecar.storage import StorageSettings
from sidecar.yaml import load, validated

INJECTED = frozenset(("find", "sign", "grow"))
"""Parameters of detectors that the sidecar itself fills in."""
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}

Domain = Annotated[str, Field(min_length=3, max_length=253, pattern=r"^[a-z0-9.-]+\.[a-z0-9-]+$")]


class OrganisationSettings(Settings):
    """What is inside, and so what is outside."""

    domains: tuple[Domain, ...] = ()
    """Registrable domains of the organisation, lower-case. Without any, only mail addresses in the agent's own
    instructions show what is inside."""
    partners: tuple[Domain, ...] = ()
    """Domains that may be sent to like inside ones."""


class SensitivePattern(Settings):
    """What else counts as sensitive."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
    """Names it in findings."""
    regex: Annotated[str, Field(min_length=1, max_length=4096)]
    """RE2 syntax, matched on lower-case text."""


class SensitiveSettings(Settings):
    """What is sensitive here, beside what comes with the sidecar."""

    patterns: Annotated[tuple[SensitivePattern, ...], Field(max_length=500)] = ()
    """A text that one of these matches counts as labelled."""

    def compiled(self) -> tuple[Pattern, ...]:
        """The patterns, checked.

        Raises:
            ConfigError: Names the pattern that is refused, and why.
        """
        found = tuple(Pattern(f"label.{entry.name}", entry.regex) for entry in self.patterns)
        try:
            check(found)
        except ConfigError as error:
            name = error.key.removeprefix("label.")
            raise ConfigError(error.message, key=f"sensitive.patterns ({name})") from error
        return found


class Owner(Settings):
    """Who owns an agent role: not the one who should review it."""

    role: Annotated[str, Field(min_length=1, max_length=128)]
    """Agent role, or a pattern such as ``billing-*``."""
    owner: Annotated[str, Field(min_length=1, max_length=128)]
    """Name of a person or a team."""


AttributeName = Annotated[str, Field(min_length=1, max_length=128)]


class SessionSettings(Settings):
    """How telemetry is put together into sessions."""

    attributes: Annotated[tuple[AttributeName, ...], Field(max_length=16)] = ()
    """Names of span and log attributes that hold a session id, beside those that are known."""
    journal: Bytes = 64 * 2**20
    """How much of what sessions were told in the last ten minutes is kept, so that what comes late is put in order. 0:
    nothing; late telemetry is then judged where it comes."""


class GateSettings(Settings):
    """The gate."""

    hold: Annotated[Seconds, Field(ge=10, le=7 * 86400)] = 900.0
    """How long a held act waits for a person; then it is denied."""
    fail_open: bool = False
    """Let agents run irreversible acts of the tools below when the sidecar does not answer. Not advised."""
    i_accept_fail_open_for: tuple[PlainName, ...] = ()
    """The tools that `fail_open` is for; both are needed."""

    @model_validator(mode="after")
    def _is_accepted(self) -> GateSettings:
        if self.fail_open != bool(self.i_accept_fail_open_for):
            raise ValueError("fail_open needs i_accept_fail_open_for: [tool, …], and the other way round")
        if any(c in tool for tool in self.i_accept_fail_open_for for c in "*?"):
            raise ValueError("i_accept_fail_open_for names tools one by one, and takes no patterns")
        return self


class Config(Settings):
    """All settings of `sidecar run`. Everything has a default that is safe on one machine."""

    storage: StorageSettings = StorageSettings()
    """Where state is kept."""
    otlp: OtlpSettings = OtlpSettings()
    """The doors for telemetry."""
    intake: IntakeSettings = IntakeSettings()
    """How much may come in."""
    kafka: tuple[KafkaSettings, ...] = ()
    """Kafka topics that telemetry is read from."""
    control: ControlSettings = ControlSettings()
    """The doors for agents and for operators."""
    observe: ObserveSettings = ObserveSettings()
    """Logs, metrics and health."""
    policy: PolicyDocument = PolicyDocument()
    """What is done about findings."""
    tools: ToolSettings = ToolSettings()
    """What tools do, where the catalogue does not know or is wrong."""
    organisation: OrganisationSettings = OrganisationSettings()
    """What is inside."""
    sensitive: SensitiveSettings = SensitiveSettings()
    """What is sensitive."""
    detectors: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of detectors, by detector; see `sidecar detectors NAME`."""
    owners: tuple[Owner, ...] = ()
    """Who owns which agent role."""
    gate: GateSettings = GateSettings()
    """The gate."""
    sessions: SessionSettings = SessionSettings()
    """How telemetry becomes sessions."""

    @model_validator(mode="before")
    @classmethod
    def _without_empty_sections(cls, document: Any) -> Any:
        """``policy:`` with nothing below it, say because all of it is commented out, is as if it were not there."""
        if not isinstance(document, dict):
            return document
        return {key: value for key, value in document.items() if value is not None or key not in cls.model_fields}

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        known = {detector.name: detector for detector in SHIPPED}
        for key, names in (("detectors", self.detectors), ("policy.modes", self.policy.modes)):
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: no detector is called {name!r}{_suggestion(name, known)}")
        for index, verdict in enumerate(self.policy.verdicts):
            wanted_by = verdict.detector or "*"
            if not any(c in wanted_by for c in "*?") and wanted_by not in known:
                hint = _suggestion(wanted_by, known)
                raise ValueError(f"policy.verdicts[{index}]: no detector is called {wanted_by!r}{hint}")
        for name, options in self.detectors.items():
            wanted = [p for p in inspect.signature(known[name]).parameters if p not in INJECTED]
            for option in options:
                if option not in wanted:
                    raise ValueError(f"detectors.{name}: no such option: {option!r}{_suggestion(option, wanted)}")
        called = [entry.name for entry in self.sensitive.patterns]
        if len(set(called)) != len(called):
            raise ValueError(f"sensitive.patterns: two have the same name: {max(called, key=called.count)}")
        if len({source.name for source in self.kafka}) != len(self.kafka):
            raise ValueError("kafka: two sources have the same name")
        if self.intake.in_flight < self.otlp.max_request:
            raise ValueError("intake.in_flight is smaller than otlp.max_request: such a request would never be taken")
        if self.otlp.buffered < 2 * self.otlp.max_request:
            raise ValueError(
                "otlp.buffered is smaller than twice otlp.max_request: half of it is for one identity, and such a "
                "request would never be taken"
            )
        return self

    def owner_of(self, role: str) -> str:
        """Who owns an agent role, "" where nobody said."""
        return next((entry.owner for entry in self.owners if fits(entry.role, role)), "")

    def warnings(self) -> list[str]:
        """What is allowed and probably not meant."""
        found = [f"policy.{text}" for text in policy.warnings(self.policy, (d.name for d in SHIPPED))]
        for section, patterns in (
            ("policy.roles", [entry.role for entry in self.policy.roles]),
            ("owners", [entry.role for entry in self.owners]),
        ):
            for index, pattern in enumerate(patterns):
                earlier = next((n for n, one in enumerate(patterns[:index]) if _covers(one, pattern)), None)
                if earlier is not None:
                    found.append(f"{section}[{index}]: never reached, {section}[{earlier}] matches all that it does")
        if self.gate.fail_open:
            tools = ", ".join(self.gate.i_accept_fail_open_for)
            found.append(f"gate.fail_open: irreversible acts of {tools} run whenever the sidecar does not answer")
        if self.otlp.anonymous:
            found.append("otlp.anonymous: anybody who reaches the port can send telemetry")
        return found


def read(path: Path | None) -> Config:
    """The configuration in a file, or the defaults.

    Raises:
        ConfigError: Names the key and the file.
    """
    if path is None:
        return Config()
    config: Config = validated(Config, load(path), str(path))
    try:
        config.sensitive.compiled()
        _try_options(config)
    except ConfigError as error:
        raise ConfigError(error.message, key=error.key, file=str(path)) from error
    return config


def _try_options(config: Config) -> None:
    for detector in SHIPPED:
        options = config.detectors.get(detector.name)
        if not options:
            continue
        parameters = inspect.signature(detector).parameters
        injected = {name: None for name in parameters if name in INJECTED}
        for name, value in options.items():
            if not _is_like(value, parameters[name].default):
                wanted = type(parameters[name].default).__name__
                raise ConfigError(f"expected {KINDS.get(wanted, wanted)}", key=f"detectors.{detector.name}.{name}")
        try:
            detector(**injected, **options)
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error), key=f"detectors.{detector.name}") from error


def _is_like(value: Any, default: Any) -> bool:
    """Whether an option is of the type of its default; a whole number will do for any number."""
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    return isinstance(value, int | float) if isinstance(default, float) else isinstance(value, type(default))


def _covers(earlier: str, later: str) -> bool:
    """Whether what `later` names is plainly named by `earlier`, too."""
    return earlier in ("*", later) or (not any(c in later for c in "*?") and fits(earlier, later))


def _suggestion(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
