"""An Orthanc with the studies of three patients, a front that behaves as Google's, and pacsbridge before them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.dicomweb.viewing import running_viewing
from tests.google import new_key, running_google
from tests.http.desk import cheap_hashes
from tests.orthanc import Orthanc, OrthancOptions
from tests.studies import Patient, make_study

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from cryptography.hazmat.primitives.asymmetric import rsa

    from tests.dicomweb.viewing import Viewing
    from tests.google import GoogleFront
    from tests.studies import MadeStudy


@dataclass(frozen=True)
class Archive:
    """An Orthanc and what is in it: two studies of Ann, one of Bob, one of Cem.

    Names, IDs and accession numbers say whose they are, so that a stray byte can be told.
    """

    orthanc: Orthanc
    ann: MadeStudy
    ann_too: MadeStudy
    bob: MadeStudy
    cem: MadeStudy

    @property
    def root(self) -> str:
        return f"{self.orthanc.url}/dicom-web"


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """Give an Orthanc with studies that no test changes."""
    folder = tmp_path_factory.mktemp("dicomweb")
    ann = Patient("ANN-ID", "Annson^Ann", "19700101", "F")
    bob = Patient("BOB-ID", "Bobson^Bob", "19800101", "M")
    cem = Patient("CEM-ID", "Cemson^Cem", "19900101", "M")
    with Orthanc(folder / "orthanc", OrthancOptions(dicom_web=True)) as orthanc:
        archive = Archive(
            orthanc,
            make_study(folder, "ANN1", patient=ann, series=2, instances=3),
            make_study(folder, "ANN2", patient=ann, instances=2),
            make_study(folder, "BOB1", patient=bob, instances=2, size=96),
            make_study(folder, "CEM1", patient=cem, instances=1),
        )
        for study in (archive.ann, archive.ann_too, archive.bob, archive.cem):
            orthanc.upload(study.paths)
        yield archive
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def key() -> rsa.RSAPrivateKey:
    """Give a key; making one takes a moment."""
    return new_key()


@pytest.fixture
async def google(archive: Archive, key: rsa.RSAPrivateKey) -> AsyncIterator[GoogleFront]:
    """Give a front as Google's before the archive."""
    async with running_google(archive.root, key) as front:
        yield front


@pytest.fixture
def fast_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap_hashes(monkeypatch)


@pytest.fixture
async def viewing(
    archive: Archive, tmp_path_factory: pytest.TempPathFactory, fast_hashes: None
) -> AsyncIterator[Viewing]:
    """Give pacsbridge before Orthanc itself."""
    section = {"upstream": "dicomweb", "url": archive.root}
    async with running_viewing(tmp_path_factory.mktemp("viewing"), dicomweb=section) as viewing:
        yield viewing


@pytest.fixture
async def google_viewing(
    google: GoogleFront, tmp_path_factory: pytest.TempPathFactory, fast_hashes: None
) -> AsyncIterator[Viewing]:
    """Give pacsbridge before the front that behaves as Google's."""
    folder = tmp_path_factory.mktemp("viewing")
    section = google.config(google.write_credentials(folder / "account.json"))
    async with running_viewing(folder, dicomweb={"upstream": "google"}, google=section) as viewing:
        yield viewing
