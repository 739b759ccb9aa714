"""Passwords: argon2id off the event loop, and what makes a password good enough."""

from __future__ import annotations

import asyncio
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pacsbridge.accounts.common_passwords import COMMON_PASSWORDS
from pacsbridge.errors import Busy, InvalidParameter

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MINIMUM_LENGTH = 8
MAXIMUM_LENGTH = 256
"""Far over what a password manager makes; it bounds the work of hashing."""
TAIL_LENGTH = 4
"""A common word stays common with this many digits and signs after it."""

WORKERS = 2
WAITING = 64
"""How many hashes may wait: at about 30 ms each, more would answer after the client has gone."""
TIME_COST = 2
MEMORY_KIB = 19 * 1024
PARALLELISM = 1
"""OWASP's recommendation for argon2id: 19 MiB, two passes, one lane."""


class Passwords:
    """Hashes and checks passwords in a few threads, so that neither the loop nor the memory suffers."""

    def __init__(
        self,
        *,
        workers: int = WORKERS,
        waiting: int = WAITING,
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._hasher = hasher or PasswordHasher(
            time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=PARALLELISM
        )
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="argon2")
        self._limit = workers + waiting
        self._pending = 0
        self._nobodys = self._hasher.hash("nobody's password")

    async def hash(self, password: str) -> str:
        """Hash a password, in the encoded form that says how it was made.

        Raises
        ------
        Busy
            Too many hashes are waiting.
        """
        return await self._run(self._make, password)

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Tell whether the password is the hash's; without a hash it is not, and takes as long to say so.

        Raises
        ------
        Busy
            Too many hashes are waiting.
        """
        if len(password) > MAXIMUM_LENGTH:
            return False
        good = await self._run(self._matches, password_hash or self._nobodys, password)
        return good and password_hash is not None

    def outdated(self, password_hash: str) -> bool:
        """Tell whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        """End the threads; hashes under way are waited for."""
        self._executor.shutdown()

    def _make(self, password: str) -> str:
        return self._hasher.hash(_encoded(password))

    def _matches(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, _encoded(password))
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[..., T], *arguments: str) -> T:
        if self._pending >= self._limit:
            raise Busy("Too many sign-ins at once.", retry_after=2)
        self._pending += 1
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._executor, work, *arguments)
        # Counted until the thread is done with it, also when the one who asked has gone.
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, _future: object) -> None:
        self._pending -= 1


def is_password_hash(text: str) -> bool:
    """Tell whether ``text`` is a hash that ``Passwords.verify`` can check."""
    try:
        PasswordHasher().check_needs_rehash(text)
    except InvalidHashError:
        return False
    return text.startswith("$argon2id$")


def check_password(password: str, *, email: str = "") -> None:
    """Refuse a password that would be guessed.

    Raises
    ------
    InvalidParameter
        It is too short, too long, common, or the person's own email.
    """
    plain = _normalised(password)
    if len(plain) < MINIMUM_LENGTH:
        raise InvalidParameter(f"A password needs at least {MINIMUM_LENGTH} characters.")
    if len(password) > MAXIMUM_LENGTH:
        raise InvalidParameter(f"A password has at most {MAXIMUM_LENGTH} characters.")
    folded = plain.casefold()
    own = {email.casefold(), email.casefold().partition("@")[0]} - {""}
    if _is_common(folded) or folded in own:
        raise InvalidParameter("That password is one of the first that anybody would try. Choose another.")


def _is_common(folded: str) -> bool:
    if folded in COMMON_PASSWORDS or len(set(folded)) <= 2 or _is_run(folded):
        return True
    word = folded.rstrip("0123456789!?.,*+-_#$@%&= ")
    return len(folded) - len(word) <= TAIL_LENGTH and word in COMMON_PASSWORDS


def _is_run(text: str) -> bool:
    """Tell whether each character follows the one before: 23456789, hgfedcba."""
    steps = {ord(right) - ord(left) for left, right in pairwise(text)}
    return steps in ({1}, {-1})


def _normalised(password: str) -> str:
    """Make a password typed on another keyboard the same one (NIST SP 800-63B 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def _encoded(password: str) -> bytes:
    return _normalised(password).encode(errors="surrogatepass")
