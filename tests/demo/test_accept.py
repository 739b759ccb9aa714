import pytest

from pacsbridge.demo.accept import Wanted, part_type, takes, wanted

JPEG_2000 = "1.2.840.10008.1.2.4.90"
OFFERED = ["application/octet-stream", "image/jp2"]
OCTETS = "multipart/related; type=application/octet-stream"


def test_a_list_is_read_with_its_quoted_parameters() -> None:
    header = 'Multipart/Related; Type="application/octet-stream"; transfer-syntax=*, image/jpeg;q=0.5'
    assert wanted([header]) == [
        Wanted("application/octet-stream", multipart=True, transfer_syntax="*"),
        Wanted("image/jpeg", multipart=False, transfer_syntax=""),
    ]
    assert wanted(['x/y; a="b, c"', "z/z"]) == [Wanted("x/y", False, ""), Wanted("z/z", False, "")]


@pytest.mark.parametrize(
    ("header", "good"),
    [
        ("", True),
        ("*/*", True),
        ("application/*", True),
        ("application/json", True),
        ("text/html, application/dicom+json", True),
        ("text/*", False),
        ('multipart/related; type="application/json"', False),
    ],
)
def test_single_parts(header: str, good: bool) -> None:
    assert takes(wanted([header]), "application/dicom+json", "application/json") == good


@pytest.mark.parametrize(
    ("header", "plain", "chosen"),
    [
        ("", False, OFFERED[0]),
        (f"{OCTETS}; transfer-syntax=*", False, OFFERED[0]),
        (f"{OCTETS}; transfer-syntax={JPEG_2000}", False, OFFERED[0]),
        (f"{OCTETS}; transfer-syntax=1.2.840.10008.1.2.4.50", False, None),
        (OCTETS, True, OFFERED[0]),
        (OCTETS, False, None),
        ("multipart/related; type=image/jp2", False, "image/jp2"),
        ("multipart/related; type=image/jpeg", False, None),
        (f"multipart/related; type=image/jpeg, {OCTETS}; transfer-syntax=*", False, OFFERED[0]),
        ("multipart/related", False, OFFERED[0]),
        ("application/octet-stream", True, None),
    ],
)
def test_parts(header: str, plain: bool, chosen: str | None) -> None:
    assert part_type(wanted([header]), JPEG_2000, plain=plain, media_types=OFFERED) == chosen
