"""Find, among those who connect to our port, the engine that knows the token. No bpy.

Any program on this machine can connect to 127.0.0.1. A connection counts as the engine's only when its first message
is Hello with the token; one that says anything else, or too much, is closed and counted, and the others go on being
heard meanwhile, so that a silent stranger cannot keep the engine out.
"""

from __future__ import annotations

import contextlib
import hmac
import selectors
import socket

from .wire import protocol

HELLO_BYTES = 4096
PENDING_CONNECTIONS = 8


class Handshake:
    """Listens until one connection has proved itself. Use as a context manager; the proven socket stays open."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=PENDING_CONNECTIONS)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._pending: dict[socket.socket, protocol.Decoder] = {}
        self.refused = 0
        """Connections that were closed because they did not know the token."""

    @property
    def port(self) -> int:
        """The port the engine must connect to."""
        return self._listener.getsockname()[1]

    def wait(self, seconds: float) -> tuple[socket.socket, protocol.Decoder, protocol.Hello] | None:
        """Listen for about that long; return the engine's socket, its decoder and its Hello, or None so far."""
        for key, _events in self._selector.select(seconds):
            if key.fileobj is self._listener:
                self._accept()
                continue
            connection = key.fileobj
            hello = self._hear(connection)
            if hello is None:
                continue
            self._selector.unregister(connection)
            connection.setblocking(True)
            return connection, self._pending.pop(connection), hello
        return None

    def __enter__(self) -> Handshake:
        return self

    def __exit__(self, *_exception: object) -> None:
        for connection in list(self._pending):
            self._drop(connection)
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # gone again before we looked
            connection, _address = self._listener.accept()
            connection.setblocking(False)
            if len(self._pending) >= PENDING_CONNECTIONS:
                connection.close()
                return
            self._pending[connection] = protocol.Decoder()
            self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, connection: socket.socket) -> protocol.Hello | None:
        """Read what a connection says; return its Hello if it has the token, close it if it cannot be the engine."""
        decoder = self._pending[connection]
        try:
            data = connection.recv(HELLO_BYTES)
            decoder.feed(data)
            message = decoder.next_or_none()
        except (OSError, protocol.ProtocolError):
            data, message = b"", None
        if isinstance(message, protocol.Hello) and hmac.compare_digest(message.token.encode(), self._token):
            return message
        if message is not None or not data or decoder.pending > HELLO_BYTES:
            self.refused += 1
            self._drop(connection)
        return None

    def _drop(self, connection: socket.socket) -> None:
        del self._pending[connection]
        self._selector.unregister(connection)
        connection.close()
