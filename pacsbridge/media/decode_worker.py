"""A process that decodes instances' files, one after the other, as `pacsbridge.media.decoders` asks it to.

It reads a path as a line from its standard input and answers with a line of JSON. Between, a dot for each step
shows that it lives. It ends with its standard input: nothing is left when the service is killed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
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

        answer = _transcode(Path(os.fsdecode(line.rstrip(b"\n"))), step)
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


if __name__ == "__main__":
    main()
