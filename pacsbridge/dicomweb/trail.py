"""The audit trail of the proxy: who searched, who opened what; a line for each study opened, not for each frame."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pacsbridge.accounts.audit import Actor, AuditRecord, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from pacsbridge.accounts.audit import AuditTrail
    from pacsbridge.accounts.values import Caller, Principal

#: Whoever goes on reading a study after this opens it again.
_ONE_READING_SECONDS = 900.0
#: Somebody who is refused a hundred frames of a study was refused the study.
_KEPT = 50_000


class StudyTrail:
    """Records what is done to studies, once for each session and study in a quarter of an hour."""

    def __init__(self, trail: AuditTrail) -> None:
        self._trail = trail
        self._recorded: dict[tuple[str, str, str, Outcome], float] = {}

    async def searched(self, who: Principal | None, caller: Caller, outcome: Outcome, detail: str) -> None:
        """Record a search."""
        await self._trail.put(AuditRecord("search", outcome, _actor(who, caller), detail=detail))

    def is_done(self, event: str, session: str, StudyInstanceUID: str, outcome: Outcome) -> bool:
        """Tell whether recording it again would add nothing."""
        recorded = self._recorded.get((session, event, StudyInstanceUID, outcome))
        return recorded is not None and time.monotonic() - recorded < _ONE_READING_SECONDS

    async def done(
        self,
        event: str,
        who: Principal | None,
        caller: Callable[[], Caller],
        StudyInstanceUID: str,
        outcome: Outcome,
    ) -> None:
        """Record what was done to a study, or tried."""
        # Who needs no sign-in has no session: they are told apart by address.
        session = who.session_id if who else caller().address
        if self.is_done(event, session, StudyInstanceUID, outcome):
            return
        key = (session, event, StudyInstanceUID, outcome)
        if len(self._recorded) >= _KEPT:
            self._recorded.clear()
        self._recorded[key] = time.monotonic()
        await self._trail.put(AuditRecord(event, outcome, _actor(who, caller()), StudyInstanceUID))


def _actor(who: Principal | None, caller: Caller) -> Actor:
    return Actor.of(who, caller) if who else Actor("public", "", caller)
