from __future__ import annotations

import pytest

from pacsbridge.dicomweb.wado_uri import translate
from pacsbridge.errors import RequestError

UIDS = "requestType=WADO&studyUID=1.2&seriesUID=3.4&objectUID=5.6"
INSTANCE = "/studies/1.2/series/3.4/instances/5.6"


@pytest.mark.parametrize(
    ("more", "path", "query", "accept"),
    [
        ("", f"{INSTANCE}/rendered", "", "image/jpeg"),
        ("&contentType=image/png", f"{INSTANCE}/rendered", "", "image/png"),
        ("&contentType=image/*", f"{INSTANCE}/rendered", "", "image/jpeg"),
        ("&frameNumber=7", f"{INSTANCE}/frames/7/rendered", "", "image/jpeg"),
        (
            "&windowCenter=40&windowWidth=400.5",
            f"{INSTANCE}/rendered",
            "window=40,400.5,linear",
            "image/jpeg",
        ),
        (
            "&rows=256&columns=512&imageQuality=90",
            f"{INSTANCE}/rendered",
            "viewport=512,256&quality=90",
            "image/jpeg",
        ),
        ("&contentType=application/dicom", INSTANCE, "", "application/dicom;transfer-syntax=*"),
        (
            "&contentType=application%2Fdicom&transferSyntax=1.2.840.10008.1.2.1",
            INSTANCE,
            "",
            "application/dicom;transfer-syntax=1.2.840.10008.1.2.1",
        ),
    ],
)
def test_it_is_said_in_the_words_of_wado_rs(more: str, path: str, query: str, accept: str) -> None:
    translated = translate(UIDS + more)
    assert (translated.resource.path, translated.query, translated.accept) == (path, query, accept)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "requestType=WADO",
        UIDS.replace("WADO", "QIDO"),
        UIDS.replace("1.2", "1/2"),
        UIDS + "&studyUID=9",
        UIDS + "&STUDYUID=9",
        UIDS + "&anonymize=yes",
        UIDS + "&frameNumber=x",
        UIDS + "&windowCenter=40",
        UIDS + "&rows=nan",
        UIDS + "&contentType=video/mpeg",
        UIDS + "&contentType=application/dicom&transferSyntax=*",
        UIDS + "&region=0,0,1,1",
        UIDS + "&presentationUID=1",
        UIDS + "&x=%ff",
    ],
)
def test_what_cannot_be_said_is_refused(query: str) -> None:
    with pytest.raises(RequestError):
        translate(query)


def test_a_frame_that_is_none_is_not_found() -> None:
    with pytest.raises(RequestError):
        translate(UIDS + "&frameNumber=1.5")
