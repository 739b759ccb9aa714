from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from pacsbridge.accounts.policy import ACCESS, AccessPolicy, Action, Decision, Scope, Study, person_name_key
from pacsbridge.accounts.values import Grants, Principal, Role

OWN = Study("1.2.3", "A1", "House^Gregory")
BY_NUMBER = Study("1.2.4", "A2", "House^Gregory")
REFERRED = Study("1.2.5", "A5", "SMITH^JANE^^")
STRANGERS = Study("1.2.6", "A6", "House^Gregory")
GRANTS = Grants(("1.2.3",), ("A2",))

ALLOW, DENY, CHECK = Decision.ALLOW, Decision.DENY, Decision.CHECK
READS = (Action.SEARCH_STUDIES, Action.READ_STUDY)
WORK = (Action.MAKE_DISC, Action.MAKE_LINK)
CHANGES = (Action.STORE_STUDY, Action.DELETE_STUDY)


def somebody(role: Role) -> Principal:
    return Principal("user:1", "s", role, ref_doctor="Smith^Jane", grants=GRANTS)


# role × resource × own / own by accession number / referred / a stranger's; once for each doctor_scope.
EVERYBODY = (ALLOW, ALLOW, ALLOW, ALLOW)
OWN_ONLY = (ALLOW, ALLOW, DENY, DENY)
NOBODY = (DENY, DENY, DENY, DENY)
EXPECTED: dict[tuple[str, Role, Action], tuple[Decision, ...]] = {}
for _scope in ("all", "referred"):
    for _action in READS:
        EXPECTED |= {
            (_scope, Role.PATIENT, _action): OWN_ONLY,
            (_scope, Role.STAFF, _action): EVERYBODY,
            (_scope, Role.ADMIN, _action): EVERYBODY,
        }
        EXPECTED["all", Role.DOCTOR, _action] = EVERYBODY
        EXPECTED["referred", Role.DOCTOR, _action] = (ALLOW, ALLOW, ALLOW, DENY)
    for _role in Role:
        for _action in CHANGES:
            EXPECTED[_scope, _role, _action] = NOBODY
        for _action in WORK:
            EXPECTED[_scope, _role, _action] = EVERYBODY if _role in (Role.STAFF, Role.ADMIN) else NOBODY
        EXPECTED[_scope, _role, Action.MANAGE_USERS] = EVERYBODY if _role is Role.ADMIN else NOBODY
    EXPECTED[_scope, Role.PATIENT, Action.SEARCH_EVERYTHING] = NOBODY
    EXPECTED[_scope, Role.STAFF, Action.SEARCH_EVERYTHING] = EVERYBODY
    EXPECTED[_scope, Role.ADMIN, Action.SEARCH_EVERYTHING] = EVERYBODY
EXPECTED["all", Role.DOCTOR, Action.SEARCH_EVERYTHING] = EVERYBODY
EXPECTED["referred", Role.DOCTOR, Action.SEARCH_EVERYTHING] = NOBODY


def test_every_row_is_expected_here() -> None:
    assert set(EXPECTED) == set(product(("all", "referred"), Role, Action))
    assert set(ACCESS) == set(Action)
    assert all(set(row) == set(Role) for row in ACCESS.values())


@pytest.mark.parametrize(("doctor_scope", "role", "action"), EXPECTED)
def test_role_by_resource_by_owner(doctor_scope: str, role: Role, action: Action) -> None:
    policy = AccessPolicy(doctor_scope=doctor_scope)  # type: ignore[arg-type] # a row of the table above
    found = tuple(
        policy.decide(somebody(role), action, study) for study in (OWN, BY_NUMBER, REFERRED, STRANGERS)
    )
    assert found == EXPECTED[doctor_scope, role, action]


@pytest.mark.parametrize(("role", "action"), list(product(Role, CHANGES)))
def test_storing_and_deleting_are_for_the_named_roles(role: Role, action: Action) -> None:
    policy = AccessPolicy(doctor_scope="referred", store_roles=[role], delete_roles=[role])
    reads = EXPECTED["referred", role, Action.READ_STUDY]
    for study, expected in zip((OWN, BY_NUMBER, REFERRED, STRANGERS), reads, strict=True):
        assert policy.decide(somebody(role), action, study) is expected
    for other in set(Role) - {role}:
        assert policy.decide(somebody(other), action, OWN) is DENY


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        (Study("1.2.3"), ALLOW),
        (Study("1.2.4"), CHECK),
        (Study("1.2.4", AccessionNumber="A2"), ALLOW),
        (Study("1.2.4", AccessionNumber=" A2 "), ALLOW),
        (Study("1.2.4", AccessionNumber="a2"), DENY),
        (Study("1.2.4", AccessionNumber="A20"), DENY),
        (Study("1.2.4", AccessionNumber=""), DENY),
        (Study("1.2.30", AccessionNumber="A9"), DENY),
        (Study("1.2.3.1", AccessionNumber="A9"), DENY),
    ],
)
def test_a_patients_study(study: Study, expected: Decision) -> None:
    patient = Principal("link:1", "s", Role.PATIENT, grants=GRANTS)
    assert AccessPolicy().decide(patient, Action.READ_STUDY, study) is expected


def test_without_accession_numbers_nothing_has_to_be_asked() -> None:
    patient = Principal("link:1", "s", Role.PATIENT, grants=Grants(("1.2.3",)))
    assert AccessPolicy().decide(patient, Action.READ_STUDY, Study("1.2.4")) is DENY


def test_without_grants_a_patient_sees_nothing() -> None:
    patient = Principal("user:1", "s", Role.PATIENT)
    for study in (Study("1.2.3"), Study("1.2.3", "", ""), Study("", "", "")):
        assert AccessPolicy().decide(patient, Action.READ_STUDY, study) is DENY


@pytest.mark.parametrize(
    ("ref_doctor", "study", "expected"),
    [
        ("Smith^Jane", Study("1", "", "Smith^Jane"), ALLOW),
        ("Smith^Jane", Study("1", "", "SMITH^JANE ^^"), ALLOW),
        ("Smith^Jane", Study("1", "", None), CHECK),
        ("Smith^Jane", Study("1", "", ""), DENY),
        ("Smith^Jane", Study("1", "", "Smith"), DENY),
        ("Smith^Jane", Study("1", "", "Smith^Jane^A"), DENY),
        ("Smith^Jane", Study("1", "", "Smithson^Jane"), DENY),
        ("Smith*", Study("1", "", "Smith^Jane"), DENY),
        ("", Study("1", "", ""), DENY),
        ("", Study("1", "", None), DENY),
        ("^^", Study("1", "", "^"), DENY),
        ("Yamada^Tarou=山田^太郎", Study("1", "", "YAMADA^TAROU=山田^太郎="), ALLOW),
        ("Yamada^Tarou=山田^太郎", Study("1", "", "Yamada^Tarou=山本^太郎"), DENY),
        ("Yamada^Tarou", Study("1", "", "Yamada^Tarou=山田^太郎"), DENY),
    ],
)
def test_a_referring_doctor(ref_doctor: str, study: Study, expected: Decision) -> None:
    doctor = Principal("user:1", "s", Role.DOCTOR, ref_doctor=ref_doctor)
    assert AccessPolicy(doctor_scope="referred").decide(doctor, Action.READ_STUDY, study) is expected


def test_person_name_key() -> None:
    assert person_name_key(" Smith ^ Jane ^^=") == (("smith", "jane"),)
    assert person_name_key("") == person_name_key("^^=") == ()


@pytest.mark.parametrize("role", Role)
def test_without_a_study_the_answer_is_whether_there_is_a_scope(role: Role) -> None:
    policy = AccessPolicy(doctor_scope="referred")
    for action in Action:
        decided = policy.decide(somebody(role), action)
        assert (decided is DENY) == (policy.scope(role, action) is Scope.NONE)


def test_the_document_shows_the_table() -> None:
    document = (Path(__file__).parents[2] / "docs" / "access-policy.md").read_text(encoding="utf-8")
    rows = {
        cells[0]: cells[1:]
        for line in document.splitlines()
        if line.startswith("| ") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 6
    }
    for action in Action:
        shown = {}
        for column, (role, scope) in zip(
            rows[action.value],
            [
                (Role.PATIENT, "all"),
                (Role.DOCTOR, "all"),
                (Role.DOCTOR, "referred"),
                (Role.STAFF, "all"),
                (Role.ADMIN, "all"),
            ],
            strict=True,
        ):
            policy = AccessPolicy(doctor_scope=scope)  # type: ignore[arg-type] # one of the two
            shown[role, scope] = column.rstrip("*")
            assert policy.scope(role, action).value == shown[role, scope], (action, role, scope)
