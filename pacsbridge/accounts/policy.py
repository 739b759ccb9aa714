"""Who may do what to which study: the one place that decides, with no HTTP and no database in it.

The table is ``ACCESS``; ``docs/access-policy.md`` shows it, and a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Literal

from pacsbridge.accounts.values import Principal, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Action(StrEnum):
    """What somebody wants to do."""

    SEARCH_STUDIES = "search studies"
    SEARCH_EVERYTHING = "search series or instances of all studies"
    READ_STUDY = "read a study"
    STORE_STUDY = "store a study"
    DELETE_STUDY = "delete a study"
    MAKE_DISC = "make a disc"
    MAKE_LINK = "make a short link"
    MANAGE_USERS = "manage users"


class Scope(StrEnum):
    """Of which studies an action may be done."""

    ALL = "all"
    OWN = "own"
    """The studies granted to the person, by Study Instance UID or by accession number."""
    REFERRED = "referred"
    """The studies that name the person as the referring physician, and the granted ones."""
    NONE = "none"


class Decision(Enum):
    """The answer about one study."""

    ALLOW = "allow"
    DENY = "deny"
    CHECK = "check"
    """It depends on attributes of the study that weren't given: ask the archive for them, then here again."""


@dataclass(frozen=True, slots=True)
class Study:
    """What is known of a study; ``None`` is not known, the empty string is known to be empty.

    ``ReferringPhysicianName`` has its component groups joined with ``=`` (PS3.5 6.2.1).
    """

    StudyInstanceUID: str
    AccessionNumber: str | None = None
    ReferringPhysicianName: str | None = None


_BY_SETTING = None
"""The role's scope comes from the configuration."""

ACCESS: Mapping[Action, Mapping[Role, Scope | None]] = {
    Action.SEARCH_STUDIES: {
        Role.PATIENT: Scope.OWN,
        Role.DOCTOR: _BY_SETTING,
        Role.STAFF: Scope.ALL,
        Role.ADMIN: Scope.ALL,
    },
    Action.SEARCH_EVERYTHING: {
        Role.PATIENT: Scope.NONE,
        Role.DOCTOR: _BY_SETTING,
        Role.STAFF: Scope.ALL,
        Role.ADMIN: Scope.ALL,
    },
    Action.READ_STUDY: {
        Role.PATIENT: Scope.OWN,
        Role.DOCTOR: _BY_SETTING,
        Role.STAFF: Scope.ALL,
        Role.ADMIN: Scope.ALL,
    },
    Action.STORE_STUDY: dict.fromkeys(Role, _BY_SETTING),
    Action.DELETE_STUDY: dict.fromkeys(Role, _BY_SETTING),
    Action.MAKE_DISC: {
        Role.PATIENT: Scope.NONE,
        Role.DOCTOR: Scope.NONE,
        Role.STAFF: Scope.ALL,
        Role.ADMIN: Scope.ALL,
    },
    Action.MAKE_LINK: {
        Role.PATIENT: Scope.NONE,
        Role.DOCTOR: Scope.NONE,
        Role.STAFF: Scope.ALL,
        Role.ADMIN: Scope.ALL,
    },
    Action.MANAGE_USERS: {
        Role.PATIENT: Scope.NONE,
        Role.DOCTOR: Scope.NONE,
        Role.STAFF: Scope.NONE,
        Role.ADMIN: Scope.ALL,
    },
}


class AccessPolicy:
    """The table, with what the configuration says.

    Parameters
    ----------
    doctor_scope
        ``all``, or ``referred``: a doctor sees the studies that name them as the referring physician.
    store_roles, delete_roles
        The roles that may store and delete through the proxy; none unless named.
    """

    def __init__(
        self,
        *,
        doctor_scope: Literal["all", "referred"] = "all",
        store_roles: Iterable[Role] = (),
        delete_roles: Iterable[Role] = (),
    ) -> None:
        self._doctor_scope = Scope(doctor_scope)
        self._named = {
            Action.STORE_STUDY: frozenset(store_roles),
            Action.DELETE_STUDY: frozenset(delete_roles),
        }

    def scope(self, role: Role, action: Action) -> Scope:
        """Tell of which studies a role may do something."""
        fixed = ACCESS[action][role]
        if fixed is not None:
            return fixed
        if action in self._named:
            return self._scope_of_change(role, action)
        if action is Action.SEARCH_EVERYTHING and self._doctor_scope is not Scope.ALL:
            # The answers of such a search need not carry the study's attributes: nothing to check them by.
            return Scope.NONE
        return self._doctor_scope

    def decide(self, principal: Principal, action: Action, study: Study | None = None) -> Decision:
        """Tell whether somebody may do something, to one study or, without one, at all.

        Without a study, ``ALLOW`` for a scope narrower than ``ALL`` means: to some studies. Each one that
        comes back has to be decided by itself.
        """
        scope = self.scope(principal.role, action)
        if scope is Scope.NONE:
            return Decision.DENY
        if scope is Scope.ALL or study is None:
            return Decision.ALLOW
        decision = _is_granted(principal, study)
        if scope is Scope.REFERRED and decision is not Decision.ALLOW:
            referred = _is_referred(principal, study)
            decision = decision if referred is Decision.DENY else referred
        return decision

    def _scope_of_change(self, role: Role, action: Action) -> Scope:
        if role not in self._named[action]:
            return Scope.NONE
        return self.scope(role, Action.READ_STUDY)


def _is_granted(principal: Principal, study: Study) -> Decision:
    grants = principal.grants
    if study.StudyInstanceUID in grants.study_iuids:
        return Decision.ALLOW
    if not grants.accession_numbers:
        return Decision.DENY
    if study.AccessionNumber is None:
        return Decision.CHECK
    number = study.AccessionNumber.strip()
    return Decision.ALLOW if number and number in grants.accession_numbers else Decision.DENY


def _is_referred(principal: Principal, study: Study) -> Decision:
    doctor = person_name_key(principal.ref_doctor)
    if not doctor:
        return Decision.DENY
    if study.ReferringPhysicianName is None:
        return Decision.CHECK
    same = person_name_key(study.ReferringPhysicianName) == doctor
    return Decision.ALLOW if same else Decision.DENY


def person_name_key(name: str) -> tuple[tuple[str, ...], ...]:
    """Make spellings of a Person Name equal: case, padding and empty ends don't matter (PS3.5 6.2.1)."""
    groups = [
        _without_empty_end([component.strip().casefold() for component in group.split("^")])
        for group in name.split("=")
    ]
    while groups and not groups[-1]:
        groups.pop()
    return tuple(groups)


def _without_empty_end(components: list[str]) -> tuple[str, ...]:
    while components and not components[-1]:
        components.pop()
    return tuple(components)
