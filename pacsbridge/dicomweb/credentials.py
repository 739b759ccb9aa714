"""What the upstream server wants to see before it answers: nothing, a password, a token."""

from __future__ import annotations

import base64
from typing import Protocol


class Credentials(Protocol):
    """Gives the value of the header ``Authorization``."""

    async def header(self) -> str:
        """Give the value; empty for none.

        Raises
        ------
        UpstreamError
            There is no token to be had.
        """
        ...

    def at_hand(self) -> str | None:
        """Give the value where nothing has to be waited for; None where it has."""
        ...

    async def refused(self, header: str) -> bool:
        """Hear that upstream refused a value, and tell whether another try makes sense."""
        ...


class FixedCredentials:
    """A value that doesn't change."""

    def __init__(self, value: str = "") -> None:
        self._value = value

    async def header(self) -> str:
        """Give the value."""
        return self._value

    def at_hand(self) -> str:
        """Give the value."""
        return self._value

    async def refused(self, header: str) -> bool:  # noqa: ARG002 - there is no other one
        """Another try makes no sense."""
        return False


def configured_credentials(username: str, password: str) -> FixedCredentials:
    """Make basic credentials (RFC 7617), or a bearer token (RFC 6750) of a password without a user name."""
    if username:
        pair = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
        return FixedCredentials(f"Basic {pair}")
    return FixedCredentials(f"Bearer {password}" if password else "")
