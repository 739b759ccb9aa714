"""dcmtk's servers for the tests: dcmqrscp as a second archive, storescp as a publisher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from tests.peers import HOST, Process, free_port, require, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

#: Without it dcmtk waits 40 ms for each small answer (Nagle's algorithm).
_ENVIRONMENT = {"TCP_NODELAY": "1"}


class DcmQrScp:
    """An archive with one storage area, for uncompressed data unless an option says otherwise.

    Parameters
    ----------
    folder
        Its configuration, index and files.
    destinations
        Move destinations: AE title → port. Its table is read at the start: they can't be added later.
    options
        More options of dcmqrscp: ``+xv`` prefers JPEG 2000 lossless, ``-xv`` proposes it, ...
    """

    def __init__(
        self, folder: Path, destinations: Mapping[str, int], *options: str, ae_title: str = "ARCHIVE"
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.port = free_port()
        self._destinations = dict(destinations)
        self._options = options
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        program = require("dcmqrscp", "storescu")
        area = self.folder / "area"
        area.mkdir(parents=True, exist_ok=True)
        config = self.folder / "dcmqrscp.cfg"
        config.write_text(self._configuration(area))
        command: list[str | Path] = [program, "-d", *self._options, "-c", config, str(self.port)]
        self._process = Process(command, self.folder / "dcmqrscp.log", _ENVIRONMENT).start()
        self._process.wait_until_listening(self.port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # it takes no signal while it waits; its index is for this test only
            self._process = None

    def fill(self, paths: Iterable[Path], *options: str) -> None:
        """Store files with storescu; `options` may name what it proposes: ``-xv`` for JPEG 2000, ..."""
        files = [str(one) for one in paths]
        for start in range(0, len(files), 500):  # the length of a command line has an end
            result = run(
                require("storescu"), *options, "-aec", self.ae_title, HOST, str(self.port),
                *files[start : start + 500],
            )  # fmt: skip
            assert result.returncode == 0, result.stdout[-2000:]

    def log(self) -> str:
        return self._process.output() if self._process else ""

    def _configuration(self, area: Path) -> str:
        hosts = "".join(f"{name} = ({name}, {HOST}, {port})\n" for name, port in self._destinations.items())
        return (
            "MaxPDUSize = 131072\nMaxAssociations = 16\n"
            f"HostTable BEGIN\n{hosts}HostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{self.ae_title} {area} RW (1000, 4096mb) ANY\nAETable END\n"
        )


class StoreScp:
    """A Storage SCP that keeps what it gets in `folder`.

    Parameters
    ----------
    options
        More options of storescp: ``+xa`` accepts every transfer syntax, ``+x=`` uncompressed only, ...
    """

    def __init__(self, folder: Path, *options: str, ae_title: str = "RIMAGE") -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.port = free_port()
        self._options = options
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        received = self.folder / "received"
        received.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [
            require("storescp"), "-d", "-pdu", "131072", "-aet", self.ae_title, "-od", received, "+uf",
            *self._options, str(self.port),
        ]  # fmt: skip
        self._process = Process(command, self.folder / "storescp.log", _ENVIRONMENT).start()
        self._process.wait_until_listening(self.port)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def files(self) -> list[Path]:
        """Give what it has received so far."""
        return sorted((self.folder / "received").iterdir())

    def log(self) -> str:
        """Give its log, every DIMSE message included."""
        return self._process.output() if self._process else ""

    def associations(self) -> int:
        """Count the associations that it accepted; the probe of `start` was none."""
        return self.log().count("Association Acknowledged")
