"""File names of downloads."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacsbridge.http.names import attachment, patient_stem, safe_stem


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("DOE^JANE", "DOE_JANE"),
        ("Müller^Jürgen^^Dr.", "Müller_Jürgen_Dr"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada_Tarou"),
        ("=山田^太郎", "山田_太郎"),
        ("../../etc/passwd", "etc_passwd"),
        ('a"b;c\r\nX: y', "a_b_c_X_y"),
        ("CON", "CON_"),
        ("^^^", ""),
        ("\u202egnp.exe", "gnp_exe"),
    ],
)
def test_a_name_becomes_a_safe_stem(name: str, stem: str) -> None:
    assert patient_stem(name) == stem


@pytest.mark.parametrize(
    ("stem", "fallback", "value"),
    [
        ("DOE_JANE", "x", 'attachment; filename="DOE_JANE.iso"'),
        (
            "Müller_Jürgen",
            "x",
            "attachment; filename=\"Muller_Jurgen.iso\"; filename*=UTF-8''M%C3%BCller_J%C3%BCrgen.iso",
        ),
        (
            "山田_太郎",
            "A-1",
            "attachment; filename=\"A-1.iso\"; filename*=UTF-8''%E5%B1%B1%E7%94%B0_%E5%A4%AA%E9%83%8E.iso",
        ),
        ("", "", 'attachment; filename="disc.iso"'),
        ("Groß", "", "attachment; filename=\"Gross.iso\"; filename*=UTF-8''Gro%C3%9F.iso"),
    ],
)
def test_other_scripts_get_a_fallback_in_ascii(stem: str, fallback: str, value: str) -> None:
    assert attachment(stem, fallback, "iso") == value


@given(st.text(), st.text())
def test_no_text_breaks_out_of_the_header(name: str, fallback: str) -> None:
    value = attachment(safe_stem(name), fallback, "iso")
    assert re.fullmatch(
        r"attachment; filename=\"[A-Za-z0-9_-]+\.iso\"(; filename\*=UTF-8''[\w!#$&+.^`|~%-]+)?",
        value,
        re.ASCII,
    )
    extended = value.partition("UTF-8''")[2]
    assert not set(unquote(extended)) & set('/\\:*?"<>|\r\n\0')
