"""The hospital's viewer folder: looked over once at start-up, copied whole onto every disc."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacsbridge.config import ConfigError
from pacsbridge.errors import SourceChanged
from pacsbridge.media.image import MAX_FILE_SIZE, DiscDirectory, DiscFile, Names
from pacsbridge.media.names import MAX_DEPTH, iso_names, joliet_problem

if TYPE_CHECKING:
    from pathlib import Path

#: What a disc has at its root already.
RESERVED = frozenset(("DICOM", "DICOMDIR", "IHE_PDI", "INDEX.HTM", "README.TXT"))
_KEY = "media.viewer_dir"


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    iso: Names
    joliet: Names


@dataclass(frozen=True, slots=True)
class Viewer:
    """A viewer folder whose names fit a disc.

    Parameters
    ----------
    entries, folders
        Its files and its directories.
    """

    entries: tuple[_Entry, ...]
    folders: tuple[_Entry, ...]

    @classmethod
    def load(cls, viewer_dir: Path) -> Viewer:
        """Look a viewer folder over.

        Parameters
        ----------
        viewer_dir
            The folder.

        Raises
        ------
        ConfigError
            It can't be put on a disc; the message names the file and what is wrong with it.
        """
        root = viewer_dir.absolute()
        if not root.is_dir():
            raise ConfigError(f"{_KEY}: {_shown(root)} is no directory")
        scan = _Scan(root)
        scan.folder(root, (), ())
        return cls(tuple(scan.entries), tuple(scan.folders))

    def files(self) -> list[DiscFile]:
        """Return its files for the disc, as long as they are now.

        Raises
        ------
        SourceChanged
            A file that was there at start-up is gone.
        """
        try:
            return [
                DiscFile(str(entry.path), entry.path.stat().st_size, entry.iso, entry.joliet)
                for entry in self.entries
            ]
        except OSError as error:
            raise SourceChanged(
                "A file of the viewer folder is gone since the start. Restart the service."
            ) from error

    def directories(self) -> list[DiscDirectory]:
        """Return its directories, the empty ones too."""
        return [DiscDirectory(folder.iso, folder.joliet) for folder in self.folders]


def _shown(path: Path) -> str:
    """Write a path on one line, whatever is in it."""
    return str(path) if str(path).isprintable() else ascii(str(path))


class _Scan:
    """Walks the folder and checks everything that a disc could choke on."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.entries: list[_Entry] = []
        self.folders: list[_Entry] = []

    def folder(self, folder: Path, iso: Names, joliet: Names) -> None:
        """Take in a directory and what is below it, by name."""
        try:
            children = {child.name: child for child in sorted(folder.iterdir())}
        except OSError as error:
            raise ConfigError(f"{_KEY}: {_shown(folder)} can't be read: {error.strerror}") from None
        directories = frozenset(name for name, child in children.items() if self._is_directory(child))
        self._check_names(children, at_root=not joliet)
        short = iso_names(children, directories=directories)
        for name, child in children.items():
            entry = _Entry(child, (*iso, short[name]), (*joliet, name))
            if len(entry.iso) > MAX_DEPTH:
                raise ConfigError(
                    f"{_KEY}: {_shown(child)} is deeper than {MAX_DEPTH} levels, which a disc can't have"
                )
            if name in directories:
                self.folders.append(entry)
                self.folder(child, entry.iso, entry.joliet)
            else:
                self.entries.append(entry)

    def _is_directory(self, path: Path) -> bool:
        """Tell directory from file; refuse everything else, and what can't be read."""
        try:
            if not path.resolve(strict=True).is_relative_to(self._root):
                raise ConfigError(f"{_KEY}: {_shown(path)} is a link that leads out of the folder")
            status = path.stat()
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "it is a link to itself"
            raise ConfigError(f"{_KEY}: {_shown(path)} can't be read: {reason}") from None
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)) or not os.access(path, os.R_OK):
            raise ConfigError(f"{_KEY}: {_shown(path)} is not a file that can be read")
        if status.st_size > MAX_FILE_SIZE:
            raise ConfigError(f"{_KEY}: {_shown(path)} is over 4 GiB, which a disc can't have")
        return stat.S_ISDIR(status.st_mode)

    @staticmethod
    def _check_names(children: dict[str, Path], *, at_root: bool) -> None:
        seen: set[str] = set()
        for name, path in children.items():
            if problem := joliet_problem(name):
                raise ConfigError(f"{_KEY}: {_shown(path)} can't be put on a disc: {problem}")
            if at_root and name.upper() in RESERVED:
                raise ConfigError(f"{_KEY}: {_shown(path)} has a name that the disc uses itself; rename it")
            if name.casefold() in seen:
                raise ConfigError(
                    f"{_KEY}: {_shown(path)} differs from another name only in upper and lower case"
                )
            seen.add(name.casefold())
