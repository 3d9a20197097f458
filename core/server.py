"""The engine as Blender's child process: connects back, proves the token, runs one job after another.

Threads: the main thread computes; a reader takes Cancel, Choose and Bye from the socket; a sender empties the
send queue. When the socket closes the engine has half a second to leave by itself, then the reader ends the
process. The one catch-all of the engine is here: whatever goes wrong becomes one Error message.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
from collections.abc import Callable
from dataclasses import replace

from core import protocol
from core.errors import Cancelled, HyperMocapError
from core.options import JobOptions
from core.sendqueue import SendQueue
from core.version import VERSION

LOG = logging.getLogger(__name__)
OK, JOB_FAILED, PROTOCOL_BROKEN, CONNECTION_LOST, NO_CONNECTION = 0, 1, 2, 3, 4
"""Exit codes of `serve`."""
HOST = "127.0.0.1"
CONNECT_S = 10.0
MAX_QUEUED_BYTES = 1 << 26
STALL_S = 20.0
"""A reader that takes nothing for this long gets poses without vertices until it reads again."""
FLUSH_S = 5.0
LEAVE_S = 0.5
"""Time between the loss of the socket and the forced end of the process."""
IDLE_S = 900.0

Run = Callable[..., protocol.Done]
"""core.pipeline.run or something with its signature."""


class ConnectionLost(Exception):
    """Blender is gone: unwind, write nothing more."""


def serve(port: int, token: str, run: Run | None = None) -> int:
    """Connect to Blender on 127.0.0.1:port, do its jobs, return the exit code."""
    try:
        sock = socket.create_connection((HOST, port), timeout=CONNECT_S)
    except OSError as error:
        LOG.error("Cannot connect to Blender on %s:%d: %s", HOST, port, error)
        return NO_CONNECTION
    sock.settimeout(None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sock:
        return Connection(sock, run).serve(token)


class Connection:
    """One connected socket and the jobs that come through it."""

    def __init__(self, sock: socket.socket, run: Run | None = None) -> None:
        self._socket, self._run = sock, run
        self._outgoing = SendQueue(MAX_QUEUED_BYTES, STALL_S)
        self._jobs: queue.Queue[protocol.Job | None] = queue.Queue()
        self._stop, self._lost, self._is_over = threading.Event(), threading.Event(), threading.Event()
        self._choice: tuple[int, ...] | None = None
        self._is_busy = False
        self._exit_code = OK
        self._has_warned = False

    def serve(self, token: str) -> int:
        """Say hello, then run jobs until Bye, a closed socket, or silence."""
        for name, work in (("read", self._read_forever), ("send", self._send_forever)):
            threading.Thread(target=work, name=name, daemon=True).start()
        self.send(protocol.Hello(token, VERSION, os.getpid(), ""))
        try:
            while (job := self._next_job()) is not None:
                outcome = self._outcome_of(job)
                self._exit_code = JOB_FAILED if isinstance(outcome, protocol.Error) else OK
                self._is_busy = False
                self.send(outcome)
        except ConnectionLost:
            LOG.warning("The connection to Blender is gone")
        self._outgoing.wait_until_empty(FLUSH_S)
        self._outgoing.close(discard=True)
        self._is_over.set()
        return self._exit_code

    def send(self, message: protocol.Message) -> None:
        """Queue a message. Raises ConnectionLost when nobody is there; never waits longer than STALL_S."""
        if self._lost.is_set():
            raise ConnectionLost
        is_urgent = isinstance(message, (protocol.Hello, protocol.Done, protocol.Error, protocol.People))
        if self._outgoing.put(protocol.encode(message), is_urgent=is_urgent):
            return
        if self._lost.is_set():
            raise ConnectionLost
        if isinstance(message, protocol.Progress):
            return
        if isinstance(message, protocol.Frames) and message.vertices.data:
            message = replace(message, vertices=protocol.NO_ARRAY)
            if not self._has_warned:
                LOG.warning("Blender does not read: frames go without vertices until it does")
                self._has_warned = True
        self._outgoing.put(protocol.encode(message), is_urgent=True)

    def _outcome_of(self, job: protocol.Job) -> protocol.Done | protocol.Error:
        """Run one job; every outcome is a message."""
        self._choice = None
        try:
            run = self._run
            if run is None:
                from core.pipeline import run
            options = JobOptions.from_dict(job.options)
            return run(job.video, options, self.send, should_stop=self._should_stop, choose=lambda: self._choice)
        except ConnectionLost:
            raise
        except Cancelled:
            return protocol.Done(True, [], {})
        except HyperMocapError as error:
            LOG.error("%s", error)
            return _failure(error.code, str(error))
        except MemoryError:
            LOG.exception("out of memory")
            return _failure("error", "The engine ran out of memory: close other programs or take a shorter range")
        except Exception as error:
            LOG.exception("the job failed unexpectedly")
            return _failure("error", f"The engine failed unexpectedly: {type(error).__name__}: {error}")

    def _should_stop(self) -> bool:
        if self._lost.is_set():
            raise ConnectionLost
        return self._stop.is_set()

    def _next_job(self) -> protocol.Job | None:
        try:
            return self._jobs.get(timeout=IDLE_S)
        except queue.Empty:
            LOG.warning("No job for %d s: the engine leaves", IDLE_S)
            return None

    def _read_forever(self) -> None:
        """Reader thread: hand on what Blender says, until it hangs up or breaks the rules."""
        decoder = protocol.Decoder()
        try:
            while data := self._socket.recv(1 << 16):
                decoder.feed(data)
                for message in decoder.messages():
                    if not self._take(message):
                        return
            LOG.info("Blender closed the connection%s", " within a message" if decoder.pending else "")
        except protocol.ProtocolError as error:
            self._refuse(str(error))
        except OSError as error:
            LOG.info("The connection broke: %s", error)
        self._end()

    def _take(self, message: protocol.Message) -> bool:
        """Act on one message; return whether more may come."""
        match message:
            case protocol.Job():
                if self._is_busy:
                    raise protocol.ProtocolError("a job came while another is running")
                self._is_busy = True
                self._stop.clear()
                self._jobs.put(message)
            case protocol.Cancel():
                self._stop.set()
            case protocol.Choose():
                if not all(type(person) is int and person >= 0 for person in message.people):
                    raise protocol.ProtocolError("choose: people must be ids")
                self._choice = tuple(message.people)
            case protocol.Bye():
                self._end()
                return False
            case _:
                raise protocol.ProtocolError(f"unexpected message {type(message).__name__}")
        return True

    def _refuse(self, text: str) -> None:
        LOG.error("Blender broke the protocol: %s", text)
        self._exit_code = PROTOCOL_BROKEN
        if not self._lost.is_set():
            self._outgoing.put(protocol.encode(protocol.Error("protocol", text[:500])), is_urgent=True)
            self._outgoing.wait_until_empty(LEAVE_S)

    def _end(self) -> None:
        """No more messages will come: stop the job, and the process if it does not leave by itself."""
        was_busy = self._is_busy
        if self._exit_code == OK and was_busy:
            self._exit_code = CONNECTION_LOST
        self._lost.set()
        self._stop.set()
        self._jobs.put(None)
        self._outgoing.close(discard=was_busy)
        if not self._is_over.wait(LEAVE_S if was_busy else FLUSH_S):
            LOG.warning("The engine did not leave by itself: ending it")
            logging.shutdown()
            os._exit(self._exit_code or CONNECTION_LOST)

    def _send_forever(self) -> None:
        """Sender thread: bytes from the queue to the socket."""
        try:
            while (data := self._outgoing.take()) is not None:
                self._socket.sendall(data)
                self._outgoing.taken()
        except OSError as error:
            LOG.info("Sending failed: %s", error)
            self._outgoing.close(discard=True)


def _failure(code: str, text: str) -> protocol.Error:
    return protocol.Error(code, " ".join(text.split())[:2000])
