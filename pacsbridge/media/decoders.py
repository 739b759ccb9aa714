"""Decoding on all processors, in processes of its own: `pacsbridge.media.decode_worker`.

The decoders are C code that keeps Python's interpreter to itself, and that a broken file can crash. In
processes they work side by side, and a crash costs one instance its decoding and nobody anything else.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from base64 import b64decode
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import structlog
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from pacsbridge.errors import SourceChanged, SpoolFull
from pacsbridge.media.decode_worker import DOT, Question
from pacsbridge.media.decompress import Undecodable
from pacsbridge.media.previews import Picture, draw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pacsbridge.instance import Instance
    from pacsbridge.media.previews import Frame

log = structlog.get_logger(__name__)

#: More processes than this take more memory than they save time: each has 60 MB.
_MOST_WORKERS = 4
#: How often somebody who waits looks whether to go on, in seconds.
_TICK_SECONDS = 0.1
_ANSWER_BYTES = 1 << 16
_COMMAND = "from pacsbridge.media.decode_worker import main; main()"
_UNCOMPRESSED = frozenset(
    {ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian}
)


class Stopped(Exception):
    """Nobody wants it decoded any more."""


class Decoders:
    """Processes that decode: started when they are needed, ended when nobody has something to decode.

    Parameters
    ----------
    count
        So many at the most; as many as there are processors, within reason, by default.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = count or min(os.cpu_count() or 1, _MOST_WORKERS)
        self._turns = threading.Semaphore(self.count)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._users = 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep idle processes for the next instance, while the context lasts."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                ending = [] if self._users else self._idle
                if not self._users:
                    self._idle = []
            for worker in ending:
                worker.end()

    def transcode(self, instance: Instance, stopped: Callable[[], bool] = lambda: False) -> Instance:
        """Bring an instance's file to Explicit VR Little Endian; see `pacsbridge.media.transcode.transcode`.

        Parameters
        ----------
        stopped
            Asked ten times a second; when it says so, the process is ended and the file is as it was.

        Raises
        ------
        Undecodable, SpoolFull, SourceChanged
            As there; a decoder that crashed or hung is an Undecodable too.
        Stopped
            `stopped` said so.
        """
        answer = self._ask(Question(instance.path), stopped)
        if "size" in answer:
            return replace(instance, size=int(answer["size"]), TransferSyntaxUID=str(ExplicitVRLittleEndian))
        if "full" in answer:
            raise SpoolFull(answer["full"])
        if "changed" in answer:
            raise SourceChanged(answer["changed"])
        raise Undecodable(answer["undecodable"])

    def draw(self, path: str, index: int, stopped: Callable[[], bool]) -> Picture | None:
        """Draw a frame of a file; see `pacsbridge.media.previews.draw_file`.

        Raises
        ------
        Stopped
            `stopped` said so.
        """
        answer = self._ask(Question(path, index), stopped)
        if "jpeg" not in answer:
            return None
        return Picture(b64decode(answer["jpeg"]), int(answer["width"]), int(answer["height"]))

    def _ask(self, question: Question, stopped: Callable[[], bool]) -> dict[str, Any]:
        with self._turn(stopped), self._worker() as worker:
            return worker.ask(question, stopped)

    @contextmanager
    def _turn(self, stopped: Callable[[], bool]) -> Iterator[None]:
        while not self._turns.acquire(timeout=_TICK_SECONDS):
            if stopped():
                raise Stopped
        try:
            if stopped():
                raise Stopped
            yield
        finally:
            self._turns.release()

    @contextmanager
    def _worker(self) -> Iterator[_Worker]:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        worker = worker or _Worker()
        try:
            yield worker
        except BaseException:
            worker.end()
            raise
        with self._lock:
            keep = self._users > 0 and worker.alive
            if keep:
                self._idle.append(worker)
        if not keep:
            worker.end()


class _Worker:
    """One process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-c", _COMMAND],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
        )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, question: Question, stopped: Callable[[], bool]) -> dict[str, Any]:
        """Have a file decoded or drawn, and give the answer; when the process dies of it, that is the answer."""
        questions, answers = self._process.stdin, self._process.stdout
        if questions is None or answers is None:
            raise ValueError("a process without pipes")
        answer = b""
        with contextlib.suppress(BrokenPipeError):
            questions.write(question.encode())
            questions.flush()
        poll = select.poll()
        poll.register(answers, select.POLLIN)
        while not answer.endswith(b"\n"):
            if stopped():
                self.end()
                _tidy(question.path)
                raise Stopped
            if poll.poll(_TICK_SECONDS * 1000):
                part = os.read(answers.fileno(), _ANSWER_BYTES)
                if not part:
                    return self._died(question.path)
                answer = (answer + part).lstrip(DOT)
        made: dict[str, Any] = json.loads(answer)
        return made

    def end(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _died(self, path: str) -> dict[str, Any]:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        log.warning("a decoder crashed", how=how)
        _tidy(path)
        hung = " took too long" if code == -signal.SIGALRM else " crashed"
        return {"undecodable": f"its decoder{hung}"}


def _tidy(path: str) -> None:
    """Remove what a process that was ended was writing; see `pacsbridge.media.transcode`."""
    source = Path(path)
    for left in source.parent.glob(f".transcode-{source.name}-*"):
        left.unlink(missing_ok=True)


class Decoding:
    """The decoding of one disc's instances, beside all else: it can begin while others still arrive.

    Parameters
    ----------
    decoders
        Who does it.
    take
        Called with the bytes by which a file grows; raises SpoolFull when there is no room for them.
    limit_bytes
        Nothing more is decoded when so much came of it, since it would not fit; 0: no limit.
    """

    def __init__(
        self, decoders: Decoders, take: Callable[[int], None] = lambda _: None, limit_bytes: int = 0
    ) -> None:
        self._decoders = decoders
        self._take = take
        self._limit = limit_bytes
        self._lock = threading.Lock()
        self._futures: dict[str, Future[Instance]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._use = contextlib.ExitStack()
        self._stopped = False
        self._begun = False
        self._closed = False
        self._failure: SpoolFull | None = None
        self.bytes = 0
        """How long the decoded files are altogether."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, instance: Instance) -> None:
        """Have an instance decoded, if it is compressed; from any thread, without delay. Twice is once."""
        if instance.TransferSyntaxUID in _UNCOMPRESSED:
            return
        with self._lock:
            if self._closed or instance.SOPInstanceUID in self._futures:
                return
            self._begin()
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._decoders.count, "decoding")
            self._futures[instance.SOPInstanceUID] = self._threads.submit(self._decode, instance)

    def result(self, instance: Instance, checkpoint: Callable[[], None]) -> Instance | None:
        """Wait for an instance that was added, and give it as it is now; None for one that was not.

        Parameters
        ----------
        checkpoint
            Called ten times a second; may raise to stop waiting.

        Raises
        ------
        Undecodable, SpoolFull, SourceChanged
            As `Decoders.transcode`.
        """
        future = self._futures.get(instance.SOPInstanceUID)
        if future is None:
            return None
        checkpoint()
        while not wait([future], _TICK_SECONDS).done:
            checkpoint()
        try:
            return future.result()
        except (Stopped, CancelledError):
            checkpoint()  # which knows that it would be too large
            raise self._failure or Stopped from None

    def draw(self, frame: Frame, stopped: Callable[[], bool]) -> Picture | None:
        """Draw a frame: here, where nothing is to be decoded; None when it can't be drawn, or shall not be."""
        instance = frame.instance
        made = self._futures.get(instance.SOPInstanceUID)
        undecoded = made is None or made.cancelled() or made.exception() is not None
        if instance.TransferSyntaxUID in _UNCOMPRESSED or not undecoded:
            return draw(frame)
        with self._lock:
            self._begin()
        with contextlib.suppress(Stopped):
            return self._decoders.draw(instance.path, frame.index, stopped)
        return None

    def close(self) -> None:
        """Stop what goes on: nothing writes beside the files any more. Can be called again."""
        with self._lock:
            self._closed = self._stopped = True
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(cancel_futures=True)
        self._use.close()

    def _begin(self) -> None:
        """Keep the processes from now on; with the lock held."""
        if not self._begun:
            self._begun = True
            self._use.enter_context(self._decoders.in_use())

    def _decode(self, instance: Instance) -> Instance:
        try:
            made = self._decoders.transcode(instance, lambda: self._stopped)
            self._take(made.size - instance.size)
        except SpoolFull as full:
            self._failure = full
            self._stopped = True
            raise
        with self._lock:
            self.bytes += made.size
            if self._limit and self.bytes > self._limit:
                self._stopped = True
        return made
