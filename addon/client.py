"""The client of the engine process: start it, prove who it is, read its messages, end it. No bpy.

One thread does all that can wait: it checks the engine Python, listens on 127.0.0.1, starts the process, accepts the
engine's connection (handshake.py), sends the job and then decodes messages into a bounded queue. When Blender does
not drain the queue the thread stops reading, the socket fills, and the engine waits in turn: memory stays flat. The
main thread only calls `poll`, which never blocks, and `send`, `cancel`, `close` and `kill`.

The last item of every conversation is `Ended`, whatever happened.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .engine_process import EngineProcess
from .errors import AddonError, EngineDiedError, EngineError, EngineStartError
from .handshake import Handshake
from .wire import protocol

QUEUED_MESSAGES = 16
RECEIVED_BYTES = 1 << 18
POLL_SECONDS = 0.25
"""How often a waiting thread looks whether the process lives and whether it should stop."""
FROM_ENGINE = (
    protocol.Video,
    protocol.Body,
    protocol.Progress,
    protocol.People,
    protocol.Shape,
    protocol.View,
    protocol.Frames,
    protocol.Revise,
    protocol.Done,
    protocol.Error,
)


@dataclass(frozen=True)
class Connected:
    """The engine proved itself and has the job."""

    hello: protocol.Hello


@dataclass(frozen=True)
class Ended:
    """The conversation is over: no item follows. `error` is None where the engine closed it after Done or Error."""

    error: AddonError | protocol.ProtocolError | None


class _Stopped(Exception):
    """Somebody called kill or close."""


class EngineClient:
    """One conversation with one engine process. Not reusable."""

    def __init__(
        self,
        python: str,
        folder: Path,
        *,
        log: Path | None = None,
        start_timeout_s: float = 120.0,
        check: Callable[[str], None] | None = None,
    ) -> None:
        """`folder` holds the package core; `check(python)` raises EngineError and runs in the thread."""
        self._python, self._folder, self._log = python, folder, log
        self._start_timeout_s, self._check = start_timeout_s, check
        self._queue: queue.Queue = queue.Queue(QUEUED_MESSAGES)
        self._stop = threading.Event()
        self._send_lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: EngineProcess | None = None
        self._token = secrets.token_hex(32)
        self._refused = 0
        self._thread: threading.Thread | None = None
        self._ender: threading.Thread | None = None

    def start(self, job: protocol.Job) -> None:
        """Start thread and process; returns at once. What goes wrong arrives as `Ended`."""
        self._thread = threading.Thread(target=self._run, args=(job,), name="engine-client", daemon=True)
        self._thread.start()

    def poll(self, budget_s: float) -> Iterator[protocol.Message | Connected | Ended]:
        """Yield what has arrived, without waiting, until it is used up or `budget_s` seconds have passed."""
        deadline = time.perf_counter() + budget_s
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return
            yield item
            if time.perf_counter() >= deadline:
                return

    def has_waiting(self) -> bool:
        """True if `poll` would yield something."""
        return not self._queue.empty()

    def wait(self, seconds: float) -> None:
        """Sleep until something can be polled, at most `seconds`. For callers that have nothing else to do."""
        deadline = time.monotonic() + seconds
        while self._queue.empty() and time.monotonic() < deadline:
            time.sleep(min(0.005, seconds))

    def send(self, message: protocol.Message) -> bool:
        """Send a message; False if there is no connection (any more)."""
        connection = self._socket
        if connection is None:
            return False
        data = protocol.encode(message)
        with self._send_lock, contextlib.suppress(OSError):
            connection.sendall(data)
            return True
        return False

    def cancel(self) -> bool:
        """Ask the engine to stop and hand over what is done."""
        return self.send(protocol.Cancel())

    def close(self) -> None:
        """Say goodbye and end the process without waiting for it here. Call it after Done or Error."""
        patience_s = 2.0 if self.send(protocol.Bye()) else 0.0
        self._stop.set()
        self._ender = threading.Thread(target=self.kill, args=(patience_s,), name="engine-end", daemon=True)
        self._ender.start()

    def join(self, seconds: float = 6.0) -> None:
        """Wait for what `close` started: a thread that is left over when Blender quits can crash it."""
        if self._ender is not None:
            self._ender.join(seconds)

    def kill(self, patience_s: float = 0.0) -> None:
        """End the process and the thread now; returns once both are gone. Safe to call twice and from any state."""
        self._stop.set()
        if patience_s and self._process is not None:
            self._process.wait(patience_s)
        self._close_socket()
        if self._process is not None:
            self._process.end(0.5)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(3.0)
        if self._process is not None:  # started between the two looks at it
            self._process.end(0.5)

    @property
    def pid(self) -> int | None:
        """Process id of the engine, None before it was started."""
        return self._process.pid if self._process else None

    def is_alive(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.exit_code() is None

    def last_lines(self, count: int = 20) -> list[str]:
        """Return the last lines the engine wrote to its stderr."""
        return self._process.last_lines(count) if self._process else []

    # -- the thread ---------------------------------------------------------------------------------------------

    def _run(self, job: protocol.Job) -> None:
        error: Exception | None = None
        try:
            if self._check:
                self._check(self._python)
            decoder = self._connect()
            self._send_first(job)
            self._read(decoder)
        except _Stopped:
            error = None
        except (AddonError, protocol.ProtocolError) as expected:
            error = expected
        except OSError as failure:
            error = EngineError(f"Talking to the engine failed ({failure.strerror or failure}): try again")
        finally:
            self._close_socket()
        self._put(Ended(error))

    def _connect(self) -> protocol.Decoder:
        with Handshake(self._token) as handshake:
            self._raise_if_stopped()
            self._process = EngineProcess(self._python, self._folder, handshake.port, self._token, self._log)
            deadline = time.monotonic() + self._start_timeout_s
            while True:
                found = handshake.wait(POLL_SECONDS)
                self._refused = handshake.refused
                if found is not None:
                    self._socket, decoder, self._hello = found
                    self._socket.settimeout(POLL_SECONDS)
                    return decoder
                self._raise_if_stopped()
                if self._process.exit_code() is not None:
                    raise EngineStartError(self._describe_death("The engine stopped while starting"))
                if time.monotonic() > deadline:
                    raise EngineStartError(
                        f"The engine did not answer within {self._start_timeout_s:.0f} s{self._token_hint()}: "
                        "open the log, then try again"
                    )

    def _send_first(self, job: protocol.Job) -> None:
        self._put(Connected(self._hello))
        if not self.send(job):
            raise EngineDiedError(self._describe_death("The engine closed the connection before it had the job"))

    def _read(self, decoder: protocol.Decoder) -> None:
        """Decode until the other side closes. Returns only where that was in order: after Done or Error."""
        connection, is_finished = self._socket, False
        while True:
            for message in decoder.messages():
                if not isinstance(message, FROM_ENGINE):
                    raise protocol.ProtocolError(f"the engine may not send {type(message).__name__}")
                is_finished = is_finished or isinstance(message, (protocol.Done, protocol.Error))
                self._put(message)
            self._raise_if_stopped()
            try:
                data = connection.recv(RECEIVED_BYTES)
            except TimeoutError:
                if self._process.exit_code() is None:
                    continue
                data = b""
            except OSError:  # reset: the process was killed, or kill() closed the socket
                data = b""
            if data:
                decoder.feed(data)
                continue
            self._raise_if_stopped()
            if is_finished:
                return
            raise EngineDiedError(self._describe_death("The engine stopped in the middle of the job"))

    def _put(self, item: object) -> None:
        """Queue an item; wait for room, but not once stopped. After kill or close nobody polls, so it is dropped."""
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=POLL_SECONDS)
                return

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _describe_death(self, what: str) -> str:
        self._process.wait(1.0)
        code, words = self._process.exit_code(), self._process.last_words()
        how = "" if code is None else f" (exit code {code})" if code >= 0 else f" (signal {-code})"
        if not words:
            words = (
                "ended from outside, perhaps for lack of memory" if code == -9 else "it left no message; open the log"
            )
        return f"{what}{how}{self._token_hint()}: {words}"

    def _token_hint(self) -> str:
        return " after a connection with a wrong token was refused" if self._refused else ""

    def _close_socket(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
