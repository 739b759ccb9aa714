"""A disc and a print where all of DICOM goes over TLS, and what ``pacsbridge check`` says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.certificates import Authority
from tests.e2e.program import run_program, write_config
from tests.e2e.service import make_config, running
from tests.orthanc import OrthancOptions
from tests.studies import make_study

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates import Certificate
    from tests.conftest import MakeOrthanc, MakeStoreScp
    from tests.dcmtk import StoreScp
    from tests.orthanc import Orthanc


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Certificate:
    return authority.issue("ours")


@pytest.fixture
def orthanc(make_orthanc: MakeOrthanc, authority: Authority) -> Orthanc:
    theirs = authority.issue("orthanc")
    return make_orthanc(OrthancOptions(tls=(theirs.certificate, theirs.key, authority.path)))


@pytest.fixture
def publisher(storescp: MakeStoreScp, authority: Authority) -> StoreScp:
    theirs = authority.issue("publisher")
    return storescp("+tls", str(theirs.key), str(theirs.certificate), "+cf", str(authority.path))


def configure(tmp_path: Path, orthanc: Orthanc, publisher: StoreScp, tls: dict[str, Any], **more: Any) -> Any:
    return make_config(
        tmp_path,
        orthanc,
        publisher={"host": "127.0.0.1", "port": publisher.port, "tls": tls},
        **({"dimse": {"fast": True}} | more),
    )


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
async def test_a_disc_and_a_print(
    fast: bool, orthanc: Orthanc, publisher: StoreScp, authority: Authority, ours: Certificate, tmp_path: Path
) -> None:
    sources = make_study(tmp_path / "src", "A1", instances=12, series=2).paths
    orthanc.upload(sources)
    tls = ours.section(ca_path=str(authority.path))
    config = configure(tmp_path, orthanc, publisher, tls, dimse={"fast": fast})
    values = config.model_dump()
    values["pacs"]["tls"] = values["storage_scp"]["tls"] = tls
    values["pacs"] |= {"connect_timeout_seconds": 10, "response_timeout_seconds": 30}
    async with running(type(config).model_validate(values)) as service:
        status, _, body = await service.get("/api/iso/download", accession_number="A1")
        assert (status, body[32769:32774]) == (200, b"CD001")
        status, _, body = await service.get("/api/iso/print", accession_number="A1")
        assert status == 200, body
    assert len(publisher.files()) == len(sources)
    assert publisher.associations() == 1


def test_check_names_what_is_wrong(
    orthanc: Orthanc, publisher: StoreScp, authority: Authority, ours: Certificate, tmp_path: Path
) -> None:
    good = ours.section(ca_path=str(authority.path))
    config = configure(tmp_path, orthanc, publisher, good)
    peer = {"connect_timeout_seconds": 10, "response_timeout_seconds": 30}
    path = write_config(tmp_path, config, pacs=peer | {"tls": good}, storage_scp={"tls": good})
    code, said = run_program("check", "--config", path)
    assert code == 0, said
    assert "the certificate is valid until" in said

    strange = Authority(tmp_path / "strange", "strange")
    expired = strange.issue("expired", days=-1)
    path = write_config(
        tmp_path,
        config,
        pacs=peer | {"tls": good | {"ca_path": str(strange.path)}},
        storage_scp={"tls": expired.section()},
    )
    code, said = run_program("check", "--config", path)
    assert code == 1, said
    assert "its certificate is not accepted" in said
    assert "Check pacs.tls" in said
    assert "certificate has expired" in said
    assert "renew storage_scp.tls.certificate_path" in said
