"""Fixtures that the rooms share: real peers, and PACSs of our own for what real ones don't do."""

from __future__ import annotations

import shutil
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import settings

from tests.databases import database, mariadb_socket, mariadb_url, sqlite_url, url
from tests.dcmtk import DcmQrScp, StoreScp
from tests.misbehaving import MisbehavingPacs, Misbehaviour
from tests.orthanc import Orthanc, OrthancOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


#: Fixtures that live elsewhere: named here alone, so that each worker has one MariaDB and not one a folder.
__all__ = ["database", "mariadb_socket", "mariadb_url", "sqlite_url", "url"]

# A shell that runs the tests in the background has SIGINT ignored, and so would the programs that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure: what an example costs in time is not what is tested.
settings.register_profile("pacsbridge", deadline=None)
settings.load_profile("pacsbridge")


class MakeOrthanc(Protocol):
    def __call__(self, options: OrthancOptions) -> Orthanc: ...


class MakeDcmQrScp(Protocol):
    def __call__(self, destinations: Mapping[str, int], *options: str) -> DcmQrScp: ...


class MakeStoreScp(Protocol):
    def __call__(self, *options: str) -> StoreScp: ...


class MakePacs(Protocol):
    def __call__(self, misbehaviour: Misbehaviour | None = None, **arguments: Any) -> MisbehavingPacs: ...


@pytest.fixture(scope="session")
def orthanc_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """One Orthanc for all tests of a worker; use `orthanc`, which cleans it."""
    folder = tmp_path_factory.mktemp("orthanc")
    with Orthanc(folder) as orthanc:
        yield orthanc
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def orthanc(orthanc_process: Orthanc) -> Orthanc:
    """Give a running, empty Orthanc that knows no destinations; a test may stop or kill it."""
    orthanc_process.reset()
    return orthanc_process


@pytest.fixture
def make_orthanc(tmp_path: Path) -> Iterator[MakeOrthanc]:
    """Give a maker of Orthancs with other options; they end with the test."""
    with ExitStack() as stack:
        yield lambda options: stack.enter_context(Orthanc(_new(tmp_path, "orthanc"), options))


@pytest.fixture
def dcmqrscp(tmp_path: Path) -> Iterator[MakeDcmQrScp]:
    """Give a maker of dcmtk archives; they end with the test."""
    with ExitStack() as stack:
        yield lambda destinations, *options: stack.enter_context(
            DcmQrScp(_new(tmp_path, "dcmqrscp"), destinations, *options)
        )


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[MakeStoreScp]:
    """Give a maker of dcmtk Storage SCPs; they end with the test."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(StoreScp(_new(tmp_path, "storescp"), *options))


@pytest.fixture
def make_pacs(tmp_path: Path) -> Iterator[MakePacs]:
    """Give a maker of PACSs that misbehave on command; they end with the test.

    `folder` may be given, so that the PACS holds what is in it; destinations: AE title → (host, port).
    """
    with ExitStack() as stack:

        def make(misbehaviour: Misbehaviour | None = None, **arguments: Any) -> MisbehavingPacs:
            folder = arguments.pop("folder", None) or _new(tmp_path, "pacs")
            return stack.enter_context(MisbehavingPacs(folder, misbehaviour, **arguments))

        yield make


def _new(parent: Path, name: str) -> Path:
    number = len(list(parent.glob(f"{name}-*")))
    folder = parent / f"{name}-{number}"
    folder.mkdir()
    return folder
