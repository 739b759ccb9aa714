from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacsbridge.dicomweb.paths import Kind, Level, Resource, is_uid, parse_path
from pacsbridge.errors import NotFound

STUDY = "/studies/1.2"
SERIES = f"{STUDY}/series/3.4"
INSTANCE = f"{SERIES}/instances/5.6"


@pytest.mark.parametrize(
    ("path", "kind", "level"),
    [
        ("/studies", Kind.SEARCH_STUDIES, Level.ROOT),
        ("/series", Kind.SEARCH_SERIES, Level.ROOT),
        ("/instances", Kind.SEARCH_INSTANCES, Level.ROOT),
        (STUDY, Kind.RETRIEVE, Level.STUDY),
        (SERIES, Kind.RETRIEVE, Level.SERIES),
        (INSTANCE, Kind.RETRIEVE, Level.INSTANCE),
        (f"{STUDY}/series", Kind.SEARCH_IN_STUDY, Level.STUDY),
        (f"{STUDY}/instances", Kind.SEARCH_IN_STUDY, Level.STUDY),
        (f"{SERIES}/instances", Kind.SEARCH_IN_STUDY, Level.SERIES),
        (f"{STUDY}/metadata", Kind.METADATA, Level.STUDY),
        (f"{INSTANCE}/metadata", Kind.METADATA, Level.INSTANCE),
        (f"{SERIES}/rendered", Kind.RENDERED, Level.SERIES),
        (f"{INSTANCE}/thumbnail", Kind.RENDERED, Level.INSTANCE),
        (f"{INSTANCE}/frames/1", Kind.BULK_DATA, Level.INSTANCE),
        (f"{INSTANCE}/frames/1,2,30", Kind.BULK_DATA, Level.INSTANCE),
        (f"{INSTANCE}/frames/2/rendered", Kind.RENDERED, Level.INSTANCE),
        (f"{INSTANCE}/bulk/7fe00010", Kind.BULK_DATA, Level.INSTANCE),
        (f"{INSTANCE}/bulkdata/0040A730/1/0040A160", Kind.BULK_DATA, Level.INSTANCE),
        (f"{INSTANCE}/bulkdata", Kind.BULK_DATA, Level.INSTANCE),
        (f"{STUDY}/pixeldata", Kind.BULK_DATA, Level.STUDY),
    ],
)
def test_what_the_standard_knows_is_matched_and_built_again(path: str, kind: Kind, level: Level) -> None:
    resource = parse_path(path)
    assert (resource.kind, resource.level, resource.path) == (kind, level, path)


def test_the_uids_are_named() -> None:
    resource = parse_path(f"{INSTANCE}/metadata")
    assert (resource.StudyInstanceUID, resource.SeriesInstanceUID, resource.SOPInstanceUID) == (
        "1.2",
        "3.4",
        "5.6",
    )


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "studies",
        "//studies",
        "/studies/",
        "/studies//",
        "/Studies",
        "/studies/1.2/",
        "/studies/..",
        "/studies/.",
        "/studies/1..2",
        "/studies/.1",
        "/studies/1.",
        "/studies/1.2/../3",
        "/studies/1.2/%2e%2e/3",
        "/studies/1.2%2fseries",
        "/studies/1.2;x",
        "/studies/1.2\x00",
        "/studies/1.2\n",
        "/studies/1,2",
        "/studies/a",
        "/studies/" + "1" * 65,
        "/studies/1.2/series/3.4/frames/1",
        "/studies/1.2/frames/1",
        f"{INSTANCE}/frames",
        f"{INSTANCE}/frames/0",
        f"{INSTANCE}/frames/01",
        f"{INSTANCE}/frames/1,",
        f"{INSTANCE}/frames/1/2",
        f"{INSTANCE}/frames/1/metadata",
        f"{INSTANCE}/bulk",
        f"{INSTANCE}/bulk/7fe0001",
        f"{INSTANCE}/bulk/7fe00010/1",
        f"{INSTANCE}/bulk/../x",
        f"{INSTANCE}/rendered/1",
        "/studies/1.2/instances/5.6",
        "/series/3.4",
        "/studies/1.2/series/3.4/series",
        "/studies/١",
        "/patients",
        "/studies/1.2/series/3.4/instances/5.6/frames/" + ",".join(["1"] * 3000),
    ],
)
def test_everything_else_is_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        parse_path(path)


@given(
    st.text(max_size=80)
    | st.from_regex(r"(/(studies|series|instances|[0-9.]{1,9}|%2e%2e|\.\.|frames|metadata)){1,9}")
)
def test_what_is_built_is_what_was_asked_and_safe(path: str) -> None:
    try:
        resource = parse_path(path)
    except NotFound:
        return
    assert resource.path == path
    assert parse_path(resource.path) == resource
    assert ".." not in path
    assert "//" not in path
    assert path.isascii()
    assert path.isprintable()


@given(st.text("0123456789.", max_size=70))
def test_a_uid_is_numbers_with_single_dots(text: str) -> None:
    good = 0 < len(text) <= 64 and all(part.isdigit() for part in text.split("."))
    assert is_uid(text) == good


@pytest.mark.parametrize(
    ("path", "stores", "deletes"),
    [
        ("/studies", True, False),
        (STUDY, True, True),
        (SERIES, False, True),
        (f"{STUDY}/metadata", False, False),
    ],
)
def test_what_can_be_stored_to_and_deleted(path: str, stores: bool, deletes: bool) -> None:
    resource: Resource = parse_path(path)
    assert (resource.takes_instances, resource.can_be_deleted) == (stores, deletes)
