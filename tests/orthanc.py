"""Orthanc as the PACS of the tests: a process of its own, or a container where only docker is there."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.peers import HOST, Process, find_program, free_port, has_docker, leave_out, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

AE_TITLE = "ORTHANC"
IMAGE = "orthancteam/orthanc"
_PLUGINS = ("/usr/share/orthanc/plugins", "/usr/local/share/orthanc/plugins")


@dataclass(frozen=True)
class OrthancOptions:
    """What differs between the Orthancs of the tests."""

    dicom_web: bool = False
    transcode: bool = False
    """Whether it may send another transfer syntax than the stored one."""
    ae_title: str = AE_TITLE
    tls: tuple[Path, Path, Path] | None = None
    """Certificate, key and trusted certificates: then it speaks TLS only, to everybody."""


class OrthancError(Exception):
    """Its REST API answered with an error."""


class Orthanc:
    """One Orthanc with its storage in `folder`.

    Attributes
    ----------
    dicom_port, http_port
        Where it listens, on the loopback interface.
    """

    def __init__(self, folder: Path, options: OrthancOptions | None = None) -> None:
        self.folder = folder
        self.options = options or OrthancOptions()
        self.dicom_port = free_port()
        self.http_port = free_port()
        self._process: Process | None = None
        self._container = f"pacsbridge-orthanc-{self.dicom_port}"

    @property
    def ae_title(self) -> str:
        return self.options.ae_title

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.http_port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, on the same ports and with the same storage as before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "orthanc.json"
        config.write_text(json.dumps(self._configuration(), indent=1))
        self._process = Process(self._command(config), self.folder / "orthanc.log").start()
        self._process.wait_until_listening(self.http_port, seconds=60)
        self._process.wait_until_listening(self.dicom_port)
        wait_until(self._answers, "Orthanc's REST API")

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def kill(self) -> None:
        """End it without warning: its connections break, its storage stays."""
        if self._process is None:
            return
        if self._process.command[0].endswith("docker"):
            run(self._process.command[0], "kill", self._container)
        self._process.kill()
        self._process = None

    def log(self) -> str:
        return (self.folder / "orthanc.log").read_text(errors="replace")

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API; `body` is JSON unless it is bytes.

        Raises
        ------
        OrthancError
            The status is not 200.
        """
        connection = http.client.HTTPConnection(HOST, self.http_port, timeout=60)
        try:
            return _call(connection, method, path, body)
        finally:
            connection.close()

    def upload(self, paths: Iterable[Path] | Path, *, tolerant: bool = False) -> list[str]:
        """Store files, or all files of a folder, over one connection; gives Orthanc's instance IDs.

        A file that it refuses is an error, unless `tolerant`.
        """
        files = sorted(one for one in paths.rglob("*") if one.is_file()) if isinstance(paths, Path) else paths
        connection = http.client.HTTPConnection(HOST, self.http_port, timeout=60)
        stored = []
        try:
            for one in files:
                try:
                    stored.append(_call(connection, "POST", "/instances", one.read_bytes())["ID"])
                except OrthancError:
                    if not tolerant:
                        raise
        finally:
            connection.close()
        return stored

    def set_destination(self, ae_title: str, port: int, host: str = HOST) -> None:
        """Register a move destination, or change it."""
        body = {"AET": ae_title, "Host": host, "Port": port, "Manufacturer": "Generic", "Timeout": 60}
        body["UseDicomTls"] = self.options.tls is not None
        self.rest("PUT", f"/modalities/{ae_title}", body)

    def forget_destinations(self) -> None:
        for name in self.rest("GET", "/modalities"):
            self.rest("DELETE", f"/modalities/{name}")

    def studies(self) -> list[str]:
        """Give the Study Instance UIDs that it holds."""
        expanded = self.rest("GET", "/studies?expand")
        return [study["MainDicomTags"]["StudyInstanceUID"] for study in expanded]

    def instance_count(self) -> int:
        return int(self.rest("GET", "/statistics")["CountInstances"])

    def delete_all(self) -> None:
        for patient in self.rest("GET", "/patients"):
            self.rest("DELETE", f"/patients/{patient}")

    def active_jobs(self) -> int:
        """Count the jobs (C-MOVEs are jobs too) that are waiting or running."""
        jobs = self.rest("GET", "/jobs?expand")
        return sum(job["State"] in {"Pending", "Running", "Retry"} for job in jobs)

    def reset(self) -> None:
        """Make it as new: running, empty, with no destinations."""
        if not self.running:
            self.stop()
            self.start()
        self.delete_all()
        self.forget_destinations()

    def _answers(self) -> bool:
        try:
            return bool(self.rest("GET", "/system"))
        except (OSError, http.client.HTTPException, OrthancError):
            return False

    def _command(self, config: Path) -> list[str | Path]:
        binary = find_program("Orthanc")
        if binary is not None:
            return [binary, config]
        if not has_docker():
            leave_out("not installed: Orthanc, and no docker engine to run it in")
        docker = find_program("docker")
        assert docker is not None
        return [
            docker,
            "run",
            "--rm",
            f"--name={self._container}",
            "--network=host",  # it has to reach the Storage SCP of the test on the loopback interface
            f"--env=DICOM_WEB_PLUGIN_ENABLED={str(self.options.dicom_web).lower()}",
            f"--volume={config}:/etc/orthanc/orthanc.json:ro",
            IMAGE,
        ]

    def _configuration(self) -> dict[str, Any]:
        configuration: dict[str, Any] = {
            "Name": "pacsbridge tests",
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": self.options.ae_title,
            "DicomModalitiesInDatabase": True,  # they outlive a restart
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "AuthenticationEnabled": False,
            "UnknownSopClassAccepted": True,
            "OverwriteInstances": True,
            "TranscodeDicomProtocol": self.options.transcode,
            "LimitFindResults": 0,
            "LimitFindInstances": 0,
            "MaximumPduLength": 131072,
            "DicomThreadsCount": 8,
            "ConcurrentJobs": 8,
            "SaveJobs": False,
            "StableAge": 1,
            "SyncStorageArea": False,  # it need not survive a power cut
        }
        if find_program("Orthanc") is not None:  # a container has a place of its own
            configuration["StorageDirectory"] = configuration["IndexDirectory"] = str(self.folder / "storage")
            configuration["Plugins"] = self._plugins()
        if self.options.tls is not None:
            certificate, key, trusted = map(str, self.options.tls)
            configuration |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": certificate,
                "DicomTlsPrivateKey": key,
                "DicomTlsTrustedCertificates": trusted,
                "DicomTlsRemoteCertificateRequired": True,
            }
        if self.options.dicom_web:
            configuration["DicomWeb"] = {"Enable": True, "Root": "/dicom-web/"}
        return configuration

    def _plugins(self) -> list[str]:
        if not self.options.dicom_web:
            return []
        found = [one for folder in _PLUGINS for one in Path(folder).glob("libOrthancDicomWeb.so")]
        if not found:
            leave_out("not installed: Orthanc's DICOMweb plugin")
        return [str(found[0])]


def _call(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    payload = body if isinstance(body, bytes) or body is None else json.dumps(body)
    connection.request(method, path, payload)
    response = connection.getresponse()
    answer = response.read()
    if response.status != http.client.OK:
        raise OrthancError(f"{method} {path}: {response.status} {answer.decode(errors='replace')}")
    return json.loads(answer) if answer else None
