"""Decoding in processes: the same as without, and what becomes of those that crash, hang or are not wanted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian

from pacsbridge.errors import SpoolFull, TooLarge
from pacsbridge.instance import Instance, read_instance
from pacsbridge.media import decoders as module
from pacsbridge.media.decoders import Decoders, Decoding, Stopped
from pacsbridge.media.decompress import Undecodable
from pacsbridge.media.disc import DiscOptions, make_disc
from pacsbridge.media.transcode import transcode
from tests.peers import decoding_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

NAMES = (
    "JPEG2000.dcm",
    "MR_small_RLE.dcm",
    "JPEG-LL.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "emri_small_RLE.dcm",
)
#: A worker that is brought to its end by files of these names.
ROGUE = """
import os, signal, time
from pacsbridge.media import decode_worker, transcode
decode_worker.STEP_SECONDS = 1
whole = transcode.transcode_file
def rogue(path, step):
    if "crash" in path.name:
        open(path.parent / f".transcode-{path.name}-x", "w").close()
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in path.name:
        while True: pass
    if "slow" in path.name:
        for _ in range(100):
            step()
            time.sleep(0.1)
    if "chatty" in path.name:
        os.write(1, b"what a decoder says\\n")
    return whole(path, step)
transcode.transcode_file = rogue
from pacsbridge.media import previews
def crash(path, index):
    os.kill(os.getpid(), signal.SIGSEGV)
previews.draw_file = crash
decode_worker.main()
"""


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    made = Decoders(2)
    with made.in_use():
        yield made
    assert decoding_processes() == set()


@pytest.fixture
def rogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMMAND", ROGUE)


def sample(folder: Path, name: str = "JPEG2000.dcm", called: str = "") -> Instance:
    folder.mkdir(exist_ok=True)
    path = folder / (called or name)
    shutil.copy(str(get_testdata_file(name)), path)
    return read_instance(path)


def test_it_is_what_it_is_without(decoders: Decoders, tmp_path: Path) -> None:
    for name in NAMES:
        ours, theirs = sample(tmp_path / "here", name), sample(tmp_path / "there", name)
        expected, made = transcode(ours), decoders.transcode(theirs)
        assert (made.size, made.TransferSyntaxUID) == (expected.size, ExplicitVRLittleEndian)
        assert Path(made.path).read_bytes() == Path(expected.path).read_bytes()
    assert len(decoding_processes()) == 1, "one process does one after the other"


def test_what_cannot_be_decoded_is_told(decoders: Decoders, tmp_path: Path) -> None:
    broken = sample(tmp_path, "JPEG2000-embedded-sequence-delimiter.dcm")
    before = Path(broken.path).read_bytes()
    with pytest.raises(Undecodable):
        decoders.transcode(broken)
    assert Path(broken.path).read_bytes() == before
    assert decoders.transcode(sample(tmp_path)).TransferSyntaxUID == ExplicitVRLittleEndian


@pytest.mark.parametrize(("called", "told"), [("crash.dcm", "crashed"), ("hang.dcm", "took too long")])
@pytest.mark.usefixtures("rogue")
def test_a_decoder_that_dies_takes_nothing_with_it(
    called: str, told: str, decoders: Decoders, tmp_path: Path
) -> None:
    bad = sample(tmp_path, called=called)
    before = Path(bad.path).read_bytes()
    with pytest.raises(Undecodable, match=told):
        decoders.transcode(bad)
    assert Path(bad.path).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [called]
    assert decoders.transcode(sample(tmp_path)).TransferSyntaxUID == ExplicitVRLittleEndian


@pytest.mark.usefixtures("rogue")
def test_what_a_decoder_prints_is_no_answer(decoders: Decoders, tmp_path: Path) -> None:
    assert (
        decoders.transcode(sample(tmp_path, called="chatty.dcm")).TransferSyntaxUID == ExplicitVRLittleEndian
    )


@pytest.mark.usefixtures("rogue")
def test_it_can_be_stopped(decoders: Decoders, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Stopped):
        decoders.transcode(sample(tmp_path, called="slow.dcm"), lambda: time.monotonic() - began > 1)
    assert decoding_processes() == set()
    assert [path.name for path in tmp_path.iterdir()] == ["slow.dcm"]


@pytest.mark.usefixtures("rogue")
def test_no_more_at_a_time_than_it_may(decoders: Decoders, tmp_path: Path) -> None:
    end = threading.Event()
    threads = []
    for number in range(4):
        instance = sample(tmp_path, called=f"slow{number}.dcm")
        threads.append(threading.Thread(target=decode_until, args=(decoders, instance, end)))
        threads[-1].start()
    wait_until(lambda: len(decoding_processes()) == 2, "both processes")
    time.sleep(0.5)
    assert len(decoding_processes()) == 2
    end.set()
    for thread in threads:
        thread.join(10)


def decode_until(decoders: Decoders, instance: Instance, end: threading.Event) -> None:
    with pytest.raises(Stopped):
        decoders.transcode(instance, end.is_set)


def test_a_killed_service_leaves_no_process(tmp_path: Path) -> None:
    sample(tmp_path)
    script = (
        "import sys, time\n"
        "from pacsbridge.instance import read_instance\n"
        "from pacsbridge.media.decoders import Decoders\n"
        "decoders = Decoders(1)\n"
        "with decoders.in_use():\n"
        "    decoders.transcode(read_instance(sys.argv[1]))\n"
        "    print(decoders._idle[0]._process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "JPEG2000.dcm")], stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        worker = int(service.stdout.readline())
        os.kill(worker, 0)
        service.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), "the process to end", 10)


# One disc's


def test_a_disc_is_decoded_beside_the_receiving(tmp_path: Path) -> None:
    instances = [sample(tmp_path, name) for name in NAMES]
    options = DiscOptions(allow_mixed_patients=True)
    taken: list[int] = []
    with Decoding(Decoders(2), taken.append) as decoding:
        for instance in instances:
            decoding.add(instance)
            decoding.add(instance)
        wait_until(lambda: decoding.bytes > 0, "the first")
        disc = make_disc(instances, tmp_path, options, decoding=decoding)
    assert disc.undecoded == ()
    assert decoding_processes() == set()
    grown = sum(Path(instance.path).stat().st_size - instance.size for instance in instances)
    assert sum(taken) == grown


@pytest.mark.usefixtures("rogue")
def test_a_crash_leaves_one_instance_as_it_came(tmp_path: Path) -> None:
    instances = [sample(tmp_path), sample(tmp_path, "JPEG-LL.dcm", called="crash.dcm")]
    options = DiscOptions(allow_mixed_patients=True)
    with Decoding(Decoders(2)) as decoding:
        disc = make_disc(instances, tmp_path, options, decoding=decoding)
    assert [one.reason for one in disc.undecoded] == ["its decoder crashed"]


@pytest.mark.parametrize("profile", ["STD-GEN-CD", "as-stored"])
def test_pictures_of_what_is_compressed_are_drawn_there_too(
    profile: Literal["STD-GEN-CD", "as-stored"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = DiscOptions(allow_mixed_patients=True, profile=profile)
    jpeg = {}
    for where in ("here", "there"):
        instances = [sample(tmp_path / where, name) for name in NAMES]
        with Decoding(Decoders(1)) as decoding:
            if where == "there" and profile == "as-stored":
                monkeypatch.setattr(module, "draw", None)
            make_disc(instances, tmp_path / where, options, decoding=decoding if where == "there" else None)
        jpeg[where] = sorted(path.read_bytes() for path in (tmp_path / where).rglob("*.JPG"))
    assert len(jpeg["here"]) >= len(NAMES)
    assert jpeg["here"] == jpeg["there"]


@pytest.mark.usefixtures("rogue")
def test_a_picture_that_crashes_is_left_out(tmp_path: Path) -> None:
    instances = [sample(tmp_path), sample(tmp_path, "JPEG-LL.dcm")]
    with Decoding(Decoders(1)) as decoding:
        options = DiscOptions(allow_mixed_patients=True, profile="as-stored")
        assert make_disc(instances, tmp_path, options, decoding=decoding).instances == 2
    assert list(tmp_path.rglob("*.JPG")) == []


@pytest.mark.usefixtures("rogue")
def test_closing_stops_all_and_leaves_nothing(tmp_path: Path) -> None:
    decoding = Decoding(Decoders(2))
    names = [f"slow{number}.dcm" for number in range(10)]
    for name in names:
        # one identity, so that each counts as another
        path = Path(sample(tmp_path, called=name).path)
        decoding.add(_called(read_instance(path), name))
    wait_until(lambda: bool(decoding_processes()), "a process")
    decoding.close()
    decoding.close()
    assert decoding_processes() == set()
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    decoding.add(_called(read_instance(path), "late"))
    assert decoding_processes() == set()


def _called(instance: Instance, name: str) -> Instance:
    return replace(instance, SOPInstanceUID=name)


def test_no_room_is_told_whichever_instance_is_asked_for(tmp_path: Path) -> None:
    instances = [_called(sample(tmp_path, called=f"{number}.dcm"), str(number)) for number in range(6)]

    def take(_count: int) -> None:
        raise SpoolFull("no room")

    with Decoding(Decoders(1), take) as decoding:
        for instance in instances:
            decoding.add(instance)
        for instance in reversed(instances):
            with pytest.raises(SpoolFull):
                decoding.result(instance, lambda: None)


def test_what_will_not_fit_is_not_decoded_to_the_end(tmp_path: Path) -> None:
    instances = [_called(sample(tmp_path, called=f"{number}.dcm"), str(number)) for number in range(6)]
    with Decoding(Decoders(1), limit_bytes=1_000_000) as decoding:
        for instance in instances:
            decoding.add(instance)
        with pytest.raises(TooLarge):
            make_disc(instances, tmp_path, DiscOptions(capacity_bytes=1_000_000), decoding=decoding)
    left = [read_instance(Path(instance.path)) for instance in instances]
    assert any(instance.TransferSyntaxUID != ExplicitVRLittleEndian for instance in left)
