import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.valuerep import PersonName

from pacsbridge.media.readable import ascii_text, megabytes, person_names, readable_date, readable_sex


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", ()),
        ("^^^^", ()),
        ("Müller^Jürgen", ("Müller, Jürgen",)),
        ("Adams^John Robert Quincy^^Rev.^B.A. M.Div.", ("Adams, Rev. John Robert Quincy, B.A. M.Div.",)),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", ("Yamada, Tarou", "山田 太郎", "やまだ たろう")),
        ("Hong^Gildong=洪^吉洞=홍^길동", ("Hong, Gildong", "洪 吉洞", "홍 길동")),
        ("=山田^太郎", ("山田 太郎",)),
        ("MISTER", ("MISTER",)),
        ("A^B^C^D^E^F=G=H", ("A, D B C, E", "G", "H")),
    ],
)
def test_names(name: str, expected: tuple[str, ...]) -> None:
    assert person_names(PersonName(name)) == expected


def test_no_name() -> None:
    assert person_names(None) == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("19700201", "1 February 1970"),
        ("1970.02.01", "1 February 1970"),
        (" 20001231 ", "31 December 2000"),
        ("19700230", "19700230"),
        ("197002", "197002"),
        ("", ""),
        ("unknown", "unknown"),
    ],
)
def test_dates(value: str, expected: str) -> None:
    assert readable_date(value) == expected


def test_sexes() -> None:
    assert [readable_sex(value) for value in ("F", "m ", "O", "", "X")] == [
        "Female",
        "Male",
        "Other",
        "",
        "X",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Klinik Süd – Größe", "Klinik Sued - Groesse"),
        ("Hôpital Saint-Étienne", "Hopital Saint-Etienne"),
        ("Łódź", "Lodz"),
        ("病院", "??"),
        ("a\r\nb\x1b", "a??b?"),
    ],
)
def test_ascii(text: str, expected: str) -> None:
    assert ascii_text(text) == expected


@given(st.text())
def test_ascii_is_printable(text: str) -> None:
    assert all(" " <= char <= "~" for char in ascii_text(text))


def test_a_size_is_never_rounded_to_its_limit() -> None:
    assert (megabytes(700_000_001), megabytes(700_000_001, up=False)) == ("700.1 MB", "700.0 MB")
    assert megabytes(1_234_500_000) == "1,234.5 MB"
