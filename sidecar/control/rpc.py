"""From gRPC to a method and back: who calls, what was sent, and which status an error is.

Handlers take raw bytes: generated ones answer UNKNOWN where a message is malformed.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from sidecar.control import convert
from sidecar.control.auth import Caller, Counts, Credentials, Denials, DoorName, roles_of
from sidecar.errors import ControlError, OutsideError, StorageError
from sidecar.sources.turns import make_way

log = logging.getLogger("sidecar.control")

LONGEST_TOKEN = 8 * 1024

Request = TypeVar("Request", bound=Message)
Context = Any
"""`grpc.aio.ServicerContext`."""

Unary = Callable[[Caller, Any, bytes, Context], Awaitable[Message]]
"""(who calls, the message, its bytes, the call) → the answer."""
ServerStream = Callable[[Caller, Any, bytes, Context], AsyncIterator[Message]]
BothStreams = Callable[[Caller, Context], Awaitable[None]]
"""Reads and writes bytes by itself."""

CODES = {code.name: code for code in grpc.StatusCode}


class Door:
    """One listener's way of letting callers in.

    Args:
        name: Whose listener it is.
        local: On loopback or a Unix socket, where callers may come without a credential.
    """

    def __init__(
        self, name: DoorName, credentials: Credentials, denials: Denials, counts: Counts, *, local: bool
    ) -> None:
        self.name, self.local, self.credentials = name, local, credentials
        self._denials, self._counts = denials, counts

    def admit(self, method: str, roles: frozenset[str], context: Context) -> Caller:
        """Who calls, if they may.

        Args:
            method: ``Service.Method``.
        Raises:
            ControlError: ``UNAUTHENTICATED`` or ``PERMISSION_DENIED``; it is on record then.
        """
        try:
            caller = self.credentials.caller(_token(context), self.name, local=self.local)
        except ControlError:
            self._denials.note(self.name, method, context.peer(), "", "unauthenticated")
            raise
        if caller.role not in roles:
            self.deny(method, caller)
        return caller

    def deny(self, method: str, caller: Caller) -> None:
        """Refuses somebody who is known, on record.

        Raises:
            ControlError: ``PERMISSION_DENIED``, always.
        """
        self._denials.note(self.name, method, caller.name, caller.role, "forbidden")
        raise ControlError("PERMISSION_DENIED", "this credential may not do this")

    async def end(self, method: str, context: Context, error: Exception) -> None:
        """Ends a call with the status that `error` is; always raises."""
        code, words = status(error)
        if code is grpc.StatusCode.INTERNAL:
            log.error("%s failed for a reason of ours: %s", method, trail(error))
        if code not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            self._counts.refused(method, code.name)
        await context.abort(code, words)

    # ------------------------------------------------------------ handlers

    def unary(self, method: str, kind: Callable[[], Message], call: Unary) -> Any:
        """A handler of one question and one answer."""
        roles = roles_of(method)

        async def handle(body: bytes, context: Context) -> bytes:
            try:
                caller = self.admit(method, roles, context)
                answer = await call(caller, convert.parse(kind, body), body, context)
                return answer.SerializeToString()
            except Exception as error:
                await self.end(method, context, error)
                raise

        return grpc.unary_unary_rpc_method_handler(handle)

    def server_stream(self, method: str, kind: Callable[[], Message], call: ServerStream) -> Any:
        """A handler of one question and many answers."""
        roles = roles_of(method)

        async def handle(body: bytes, context: Context) -> None:
            try:
                caller = self.admit(method, roles, context)
                async for answer in call(caller, convert.parse(kind, body), body, context):
                    await context.write(answer.SerializeToString())
            except Exception as error:
                await self.end(method, context, error)
                raise

        return grpc.unary_stream_rpc_method_handler(handle)

    def both_streams(self, method: str, call: BothStreams) -> Any:
        """A handler that reads and writes by itself."""
        roles = roles_of(method)

        async def handle(_: Any, context: Context) -> None:
            try:
                await call(self.admit(method, roles, context), context)
            except Exception as error:
                await self.end(method, context, error)
                raise

        return grpc.stream_stream_rpc_method_handler(handle)


def service(name: str, handlers: Mapping[str, Any], *, urgent: Iterable[str] = ()) -> Any:
    """Handlers of all methods of a service, for `grpc.aio.Server.add_generic_rpc_handlers`.

    Args:
        urgent: Methods whose calls bulk work on this loop gives way to, from the moment their headers are there.
    """
    return _Service(name, handlers, frozenset(urgent))


class _Service(grpc.ServiceRpcHandler):  # type: ignore[misc]
    def __init__(self, name: str, handlers: Mapping[str, Any], urgent: frozenset[str]) -> None:
        self._name = name
        self._handlers = {f"/{name}/{method}": handler for method, handler in handlers.items()}
        self._urgent = frozenset(f"/{name}/{method}" for method in urgent)

    def service_name(self) -> str:
        return self._name

    def service(self, call: Any) -> Any:
        if call.method in self._urgent:
            make_way()
        return self._handlers.get(call.method)


def status(error: Exception) -> tuple[grpc.StatusCode, str]:
    """How an error is told; nothing of what was sent is in it."""
    if isinstance(error, ControlError):
        return CODES[error.code], str(error)
    if isinstance(error, StorageError):
        return grpc.StatusCode.UNAVAILABLE, "cannot be stored now"
    if isinstance(error, OutsideError):
        return grpc.StatusCode.UNAVAILABLE, "not now"
    return grpc.StatusCode.INTERNAL, "our mistake"


def trail(error: Exception) -> str:
    """Where an error came from, for the log; not its words, which may repeat what was sent."""
    return type(error).__name__ + "\n" + "".join(traceback.format_tb(error.__traceback__))


def _token(context: Context) -> str | None:
    """The one bearer token of a call, None where there is no authorization at all.

    Raises:
        ControlError: ``UNAUTHENTICATED``: there is something else.
    """
    told = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if not told:
        return None
    if len(told) == 1 and isinstance(told[0], str):
        scheme, _, token = told[0].partition(" ")
        token = token.strip()
        if scheme.lower() == "bearer" and 0 < len(token) <= LONGEST_TOKEN:
            return token
    raise ControlError("UNAUTHENTICATED", "expected one header: authorization: Bearer TOKEN")
