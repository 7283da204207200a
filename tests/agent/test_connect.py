"""Options, credentials, doors, forks, and what the package gives away."""

from __future__ import annotations

import ast
import inspect
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

import sidecar.agent as sidecar
from sidecar.agent import aio
from sidecar.agent.options import Credential, Options
from sidecar.testing import FakeSidecar

PACKAGE = Path(sidecar.__file__).parent


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("SIDECAR_"):
            monkeypatch.delenv(name)


# ---------------------------------------------------------------- options


def test_options_come_from_arguments_then_environment_then_defaults(monkeypatch):
    assert (Options.gather().control, Options.gather().otlp) == ("127.0.0.1:4320", "127.0.0.1:4317")
    monkeypatch.setenv("SIDECAR_CONTROL", "unix:/run/sidecar.sock")
    monkeypatch.setenv("SIDECAR_OTLP", "http://localhost:9999/")
    assert Options.gather().control == "unix:/run/sidecar.sock"
    assert Options.gather().otlp == "localhost:9999"
    assert Options.gather(control="127.0.0.1:1").control == "127.0.0.1:1"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"deadline_s": 0.001}, "deadline_s"),
        ({"deadline_s": float("nan")}, "deadline_s"),
        ({"lease_s": 60.0}, "lease_s"),
        ({"patience_s": -1.0}, "patience_s"),
        ({"block_s": -1.0}, "block_s"),
        ({"on_pause": "ignore"}, "on_pause"),
        ({"cert": "x"}, "belong together"),
        ({"token": "a", "token_file": "b"}, "exclude"),
        ({"token": "a", "control": "sidecar.example:4320"}, "in the clear"),
        ({"token": "a", "otlp": "10.0.0.7:4317"}, "in the clear"),
        ({"otlp": "https://sidecar.example:4317"}, "asks for TLS"),
    ],
)
def test_option_that_makes_no_sense_is_refused_and_named(given, words):
    with pytest.raises(sidecar.SidecarMisconfigured, match=words):
        Options.gather(**given)


def test_explicit_token_file_wins_over_a_token_in_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SIDECAR_TOKEN", "from-environment")
    (tmp_path / "token").write_text("from-file\n")
    options = Options.gather(token_file=tmp_path / "token")
    assert Credential(options).metadata() == (("authorization", "Bearer from-file"),)


def test_token_file_that_changes_is_read_again(tmp_path):
    file = tmp_path / "token"
    file.write_text("one\n")
    credential = Credential(Options.gather(token_file=file))
    assert credential.metadata() == (("authorization", "Bearer one"),)
    (tmp_path / "next").write_text("two\n")
    (tmp_path / "next").replace(file)
    assert credential.metadata() == (("authorization", "Bearer two"),)
    file.unlink()  # between two states of a rotation the old one is kept
    assert credential.metadata() == (("authorization", "Bearer two"),)


def test_unreadable_credentials_are_found_at_connect(tmp_path):
    with pytest.raises(sidecar.SidecarMisconfigured, match="token file"):
        sidecar.connect("a", token_file=tmp_path / "none", tracer_provider=TracerProvider())
    (tmp_path / "token").write_bytes("tökén\n".encode())
    with pytest.raises(sidecar.SidecarMisconfigured, match="cannot read"):
        sidecar.connect("a", ca=tmp_path / "none", tracer_provider=TracerProvider())
    with pytest.raises(sidecar.SidecarMisconfigured, match="ASCII"):
        sidecar.connect("a", token_file=tmp_path / "token", tracer_provider=TracerProvider())


def test_state_folder_that_cannot_be_used_is_found_at_connect(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(sidecar.SidecarMisconfigured, match="state_dir"):
        sidecar.connect("a", state_dir=tmp_path / "file" / "below", tracer_provider=TracerProvider())


def test_secrets_stay_out_of_words_and_logs(fake, plain, caplog):
    caplog.set_level("DEBUG")
    agent = plain.connect(token="s3cr3t-t0ken")
    session = plain.open(agent)
    fake.stop()
    with pytest.raises(sidecar.SidecarUnavailable) as refusal:
        plain.act(session, "send_mail", arguments={"password": "hunter2"})
    shown = [repr(o) for o in (agent, session, agent.client.options, agent.client.wire._credential, refusal.value)]
    everything = "\n".join([*shown, caplog.text, str(refusal.value)])
    assert "s3cr3t-t0ken" not in everything
    assert "hunter2" not in everything


@pytest.mark.parametrize("session_id", ["a b", "ä", "x" * 129, "a/b", "a\n"])
def test_session_id_of_odd_form_is_refused(plain, session_id):
    with pytest.raises(ValueError, match="session id"):
        plain.connect().session(session_id)


def test_session_that_is_open_cannot_be_opened_again(plain):
    session = plain.open(plain.connect())
    with pytest.raises(RuntimeError, match="open already"):
        session.open()


# ---------------------------------------------------------------- doors


def test_unix_socket_is_a_door(tmp_path, plain):
    with FakeSidecar(address=f"unix:{tmp_path}/s") as fake:
        agent = plain.connect(control=fake.address, otlp=fake.address, token="t")
        plain.act(plain.open(agent), "send_mail")
        fake.until(lambda: fake.outcomes and fake.exports)
        agent.close()


def test_mutual_tls(tmp_path, plain):
    grpc = pytest.importorskip("grpc")
    authority, server, client = _certificates(tmp_path)
    credentials = grpc.ssl_server_credentials(
        [((server / "key").read_bytes(), (server / "cert").read_bytes())], (authority / "cert").read_bytes(), True
    )
    with FakeSidecar(credentials=credentials) as fake:
        trusted = {"ca": authority / "cert", "control": fake.address, "otlp": fake.address, "deadline_s": 2.0}
        agent = plain.connect(cert=client / "cert", key=client / "key", **trusted)
        assert plain.act(plain.open(agent), "send_mail") == "done"
        fake.until(lambda: fake.outcomes and fake.exports)
        stranger = plain.connect(flush_s=0.0, **trusted)  # no certificate of its own
        with pytest.raises(sidecar.SidecarUnavailable):
            plain.act(plain.open(stranger), "send_mail")
        agent.close()
        stranger.close()


def _certificates(folder):
    """An authority, a server and a client certificate."""
    import datetime
    import ipaddress

    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)
    issuer = None
    made = []
    for name in ("authority", "server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer[0] if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(names, critical=False)
        )
        issuer = issuer or (subject, key)
        place = folder / name
        place.mkdir()
        certificate = builder.sign(issuer[1], hashes.SHA256())
        (place / "cert").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (place / "key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        made.append(place)
    return made


# ---------------------------------------------------------------- forks


def test_forked_child_is_refused_and_the_parent_goes_on(fake):
    script = f"""
        import os, sys
        import sidecar.agent as sidecar
        agent = sidecar.connect("a", control={fake.address!r}, otlp={fake.address!r})
        with agent.session() as session:
            with session.act("send_mail"):
                pass
            child = os.fork()
            if child == 0:
                try:
                    with session.act("read_mail", reversible=True):
                        os._exit(1)
                except sidecar.SidecarUnavailable as refusal:
                    os._exit(0 if "forked" in str(refusal) else 2)
                os._exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            with session.act("send_mail"):
                pass
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
    assert [question.tool for question in fake.asked] == ["send_mail", "send_mail"]


def test_process_may_fork_between_connect_and_its_first_session(fake):
    """As servers do that load the application before they fork their workers."""
    script = f"""
        import os
        import sidecar.agent as sidecar
        agent = sidecar.connect("a", control={fake.address!r}, otlp={fake.address!r})
        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                with agent.session() as session, session.act("send_mail"):
                    pass
                agent.close()
                os._exit(0)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)
    assert len({question.instance_id for question in fake.asked}) == 2
    assert len(fake.outcomes) == 2
    assert [span.name for span in fake.spans] == ["execute_tool send_mail"] * 2


# ---------------------------------------------------------------- what the package gives away


def test_public_names_are_listed_exist_and_say_what_they_are():
    for module in (sidecar, aio):
        assert sorted(module.__all__) == list(module.__all__)
        for name in module.__all__:
            assert inspect.getdoc(getattr(module, name)), f"{module.__name__}.{name} says nothing"
    assert {name for name in vars(sidecar) if inspect.isclass(vars(sidecar)[name])} <= set(sidecar.__all__)


def test_both_kinds_of_session_and_agent_have_the_same_verbs():
    def verbs(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    assert verbs(sidecar.Session) == verbs(aio.Session)
    assert verbs(sidecar.Agent) == verbs(aio.Agent)
    assert verbs(sidecar.Act) == verbs(aio.AsyncAct)
    assert inspect.signature(sidecar.connect).parameters == inspect.signature(aio.connect).parameters
    for verb in ("session", "tool"):
        theirs, ours = (inspect.signature(getattr(kind.Agent, verb)) for kind in (aio, sidecar))
        assert theirs.parameters == ours.parameters


def test_refusals_form_one_tree_and_survive_a_process_boundary():
    kinds = (sidecar.ActHeld, sidecar.ActRefused, sidecar.SessionPaused, sidecar.SessionTerminated)
    assert all(issubclass(kind, sidecar.SidecarRefusal) and kind.judged for kind in kinds)
    assert not sidecar.SidecarUnavailable.judged
    refusal = sidecar.ActHeld("words", decision_id="d", retry_after_s=1.0, session_id="s", tool="t")
    again = pickle.loads(pickle.dumps(refusal))
    assert (str(again), again.decision_id, again.tool, again.judged) == ("words", "d", "t", True)


def test_library_imports_only_the_control_stubs_grpc_protobuf_and_opentelemetry():
    allowed = {"sidecar.agent", "sidecar.control.v1", "grpc", "google.protobuf", "opentelemetry"}
    for file in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module]
            else:
                continue
            for name in names:
                known = name == "sidecar" or name.split(".")[0] in sys.stdlib_module_names
                assert known or any(name == a or name.startswith(f"{a}.") for a in allowed), f"{file.name}: {name}"
    loaded = subprocess.run(
        [sys.executable, "-c", "import sidecar.agent, sidecar.agent.aio, sys; print(*sys.modules)"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert not {"msgspec", "pydantic", "river", "numpy", "sidecar.core", "sidecar.errors"} & set(loaded)
