"""Makes everything that turns data into code end the process that uses it (P16).

    python -m tests.contracts.forbid

imports all of the sidecar so, and its agent library.
"""

from __future__ import annotations

import builtins
import os
import pickle
import pkgutil
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import yaml

MODULES = frozenset(
    ("pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "joblib")
)
CALLS = frozenset(("eval", "exec", "compile", "__import__"))
LOADERS = frozenset(("load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"))
EXIT = 77


def install() -> None:
    """From now on nothing is unpickled, no YAML loaded by an unsafe loader, and the sidecar evaluates nothing."""
    for name in ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler"):
        setattr(pickle, name, _forbidden(f"pickle.{name}"))
    for name in LOADERS:
        setattr(yaml, name, _forbidden(f"yaml.{name}"))
    for name in ("eval", "exec"):
        setattr(builtins, name, _guarded(getattr(builtins, name), f"builtins.{name}"))
    builtins.__import__ = _importing(builtins.__import__)
    sys.addaudithook(_hear)


def _end(what: str) -> None:
    os.write(2, f"forbidden: {what}\n".encode())
    os._exit(EXIT)


def _forbidden(what: str) -> Callable[..., Any]:
    return lambda *given, **named: _end(what)


def _guarded(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    def guarded(*given: Any, **named: Any) -> Any:
        if str(sys._getframe(1).f_globals.get("__name__")).startswith("sidecar"):
            _end(what)
        return function(*given, **named)

    return guarded


def _importing(function: Callable[..., Any]) -> Callable[..., Any]:
    def importing(name: str, globals: Any = None, *rest: Any, **named: Any) -> Any:  # noqa: A002
        if globals and str(globals.get("__name__")).startswith("sidecar") and name.partition(".")[0] in MODULES:
            _end(f"import {name}")
        return function(name, globals, *rest, **named)

    return importing


def _hear(event: str, arguments: Any) -> None:
    if event == "pickle.find_class":
        _end(event)


if __name__ == "__main__":
    import sidecar

    install()
    for module in pkgutil.walk_packages(sidecar.__path__, "sidecar."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    print("imported")
