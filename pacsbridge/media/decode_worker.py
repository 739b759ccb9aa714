"""A process that decodes and draws instances' files, one after the other, as `pacsbridge.media.decoders` asks.

It reads a question as a line of JSON from its standard input and answers with another. Between, a dot for each step
shows that it lives. It ends with its standard input: nothing is left when the service is killed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from base64 import b64encode
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable

#: A decoder that takes longer for one frame hangs, and the kernel ends it: Python can't interrupt it.
STEP_SECONDS = 120
#: What it may use of memory in bytes: the largest frames fit, a description that lies about them does not.
_MEMORY_BYTES = 6 << 30
#: Below the service itself, which answers people meanwhile.
_NICENESS = 5
#: What a step looks like.
DOT = b"."


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: to bring a file to Explicit VR Little Endian, or to draw one of its frames, from 0."""

    path: str
    frame: int | None = None

    def encode(self) -> bytes:
        """Write it as a line."""
        return json.dumps(asdict(self)).encode() + b"\n"


def main() -> None:
    """Serve until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal reaches us too; the service decides
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.RLIM_INFINITY))
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a decoder prints is no answer
    for line in questions:

        def step() -> None:
            signal.alarm(STEP_SECONDS)
            answers.write(DOT)

        question = Question(**json.loads(line))
        if question.frame is None:
            answer = _transcode(Path(question.path), step)
        else:
            answer = _draw(question.path, question.frame, step)
        signal.alarm(0)
        _write_all(answers, json.dumps(answer).encode() + b"\n")


def _write_all(out: BinaryIO, data: bytes) -> None:
    while data:
        data = data[out.write(data) :]


def _transcode(path: Path, step: Callable[[], None]) -> dict[str, str | int]:
    from pacsbridge.errors import SourceChanged, SpoolFull
    from pacsbridge.media.decompress import Undecodable
    from pacsbridge.media.transcode import transcode_file

    try:
        step()
        return {"size": transcode_file(path, step)}
    except Undecodable as problem:
        return {"undecodable": str(problem)}
    except SourceChanged as problem:
        return {"changed": problem.message}
    except SpoolFull as problem:
        return {"full": problem.message}
    except MemoryError:
        return {"undecodable": "there is not enough memory to decode it"}
    except BrokenPipeError:
        raise
    except OSError as error:
        return {"undecodable": f"the spool: {error.strerror}"}


def _draw(path: str, index: int, step: Callable[[], None]) -> dict[str, str | int]:
    from pacsbridge.media.previews import draw_file

    step()
    picture = draw_file(path, index)
    if picture is None:
        return {}
    return {"jpeg": b64encode(picture.jpeg).decode(), "width": picture.width, "height": picture.height}


if __name__ == "__main__":
    main()
