from __future__ import annotations

from pacsbridge.dicomweb.headers import for_client, for_upstream


def test_what_dicomweb_needs_goes_up_and_nothing_else() -> None:
    given = [
        ("accept", "application/dicom+json"),
        ("Accept", "image/jpeg"),
        ("RANGE", "bytes=0-"),
        ("Authorization", "Bearer ours"),
        ("Cookie", "pacsbridge_session=x"),
        ("Host", "images"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Goog-User-Project", "p"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("Connection", "close"),
        ("Transfer-Encoding", "chunked"),
        ("TE", "x"),
        ("Proxy-Authorization", "x"),
    ]
    assert for_upstream(given) == {"Accept": "application/dicom+json, image/jpeg", "Range": "bytes=0-"}


def test_what_names_upstream_or_acts_in_our_name_does_not_come_down() -> None:
    given = {
        "content-type": "image/jpeg",
        "content-length": "5",
        "etag": '"x"',
        "set-cookie": "a=b",
        "server": "ESF",
        "connection": "close",
        "transfer-encoding": "chunked",
        "access-control-allow-origin": "*",
        "alt-svc": "h3",
        "x-goog-project": "p",
        "location": "http://x",
        "www-authenticate": "Bearer",
        "retry-after": "7",
    }
    passed = for_client(given)
    assert passed == {
        "Content-Length": "5",
        "Content-Type": "image/jpeg",
        "ETag": '"x"',
        "Retry-After": "7",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
    }


def test_caches_are_told_to_ask_again() -> None:
    assert for_client({"cache-control": "public, max-age=9"})["Cache-Control"] == "private, no-cache"
    assert for_client({"cache-control": "no-store"})["Cache-Control"] == "no-store"
    assert (
        for_client({"cache-control": "public, max-age=9"}, shared=True)["Cache-Control"]
        == "public, max-age=9"
    )
    assert "Cache-Control" not in for_client({}, shared=True)


def test_a_document_that_a_browser_would_run_is_shut_in() -> None:
    assert "sandbox" in for_client({"content-type": "text/html"})["Content-Security-Policy"]
    assert "Content-Security-Policy" not in for_client({"content-type": "application/pdf"})
