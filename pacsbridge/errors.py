"""Every error that a user can meet: its code, its HTTP status and its message.

    PacsbridgeError                     500 internal_error
      RequestError
        MissingParameter                400 missing_parameter
        InvalidParameter                400 invalid_parameter
        Unauthorized                    401 unauthorized
        Forbidden                       403 forbidden
        NotFound                        404 not_found
        TooManyRequests                 429 too_many_requests
      ServiceError
        Busy                            503 busy
        NotConfigured                   503 not_configured
        Interrupted                     503 interrupted
        DatabaseUnavailable             503 database_unavailable
      DiscError
        NoDicomData                     404 no_dicom_data
        MixedPatients                   409 mixed_patients
        TooLarge                        413 too_large
        SpoolFull                       507 spool_full
        SourceChanged                   500 internal_error
      PacsError
        PacsUnreachable                 502 pacs_unreachable
        PacsRejected                    502 pacs_rejected
        PacsTimeout                     504 pacs_timeout
        IncompleteRetrieval             502 incomplete_retrieval
      PublisherError
        PublisherUnreachable            502 publisher_unreachable
        PublisherRejected               502 publisher_rejected
      UpstreamError
        UpstreamUnreachable             502 upstream_unreachable
        UpstreamTimeout                 504 upstream_timeout

A message is written for the person who reads it: what happened, and what to do. It holds no patient's name
and no identifier that the caller did not send.
"""

from __future__ import annotations


class PacsbridgeError(Exception):
    """The root: whatever is raised on purpose.

    Parameters
    ----------
    message
        For a person: what happened and what to do about it.
    retry_after
        Seconds after which another try makes sense, for the ``Retry-After`` header (RFC 9110, 10.2.3).
    """

    code = "internal_error"
    status = 500

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class RequestError(PacsbridgeError):
    """The caller asked for something that can't be answered as asked."""

    code = "invalid_parameter"
    status = 400


class MissingParameter(RequestError):
    """A parameter that must be there is absent or empty."""

    code = "missing_parameter"


class InvalidParameter(RequestError):
    """A parameter has a value that can't be used."""

    code = "invalid_parameter"


class Unauthorized(RequestError):
    """No credentials, or bad ones."""

    code = "unauthorized"
    status = 401


class Forbidden(RequestError):
    """Known, but not allowed."""

    code = "forbidden"
    status = 403


class NotFound(RequestError):
    """There is no such thing here."""

    code = "not_found"
    status = 404


class TooManyRequests(RequestError):
    """Asked too often."""

    code = "too_many_requests"
    status = 429


class ServiceError(PacsbridgeError):
    """The service can't do it now."""

    code = "busy"
    status = 503


class Busy(ServiceError):
    """Everything is in use and the queue is full, or the service is stopping."""

    code = "busy"


class NotConfigured(ServiceError):
    """The feature is switched off in the configuration."""

    code = "not_configured"


class DatabaseUnavailable(ServiceError):
    """The database can't be reached, or is too busy to answer."""

    code = "database_unavailable"


class Interrupted(ServiceError):
    """The service ended while a job was unfinished."""

    code = "interrupted"

    def __init__(self) -> None:
        super().__init__("The service was stopped or restarted while this was being made. Run it again.")


class DiscError(PacsbridgeError):
    """A disc can't be made of what was asked for."""


class NoDicomData(DiscError):
    """The PACS has no such study, or the study has no instances."""

    code = "no_dicom_data"
    status = 404


class MixedPatients(DiscError):
    """The accession numbers belong to different patients."""

    code = "mixed_patients"
    status = 409


class TooLarge(DiscError):
    """The disc would be over ``media.capacity_bytes``."""

    code = "too_large"
    status = 413


class SpoolFull(DiscError):
    """There is no room for what has to be received."""

    code = "spool_full"
    status = 507


class SourceChanged(DiscError):
    """A file of the disc is gone, or not as long as it was when the disc was laid out."""


class PacsError(PacsbridgeError):
    """The archive did not do what it was asked for."""

    code = "pacs_rejected"
    status = 502


class PacsUnreachable(PacsError):
    """No connection to the PACS, or it was lost."""

    code = "pacs_unreachable"


class PacsRejected(PacsError):
    """The PACS refused the association or answered with a failure status."""

    code = "pacs_rejected"


class PacsTimeout(PacsError):
    """The PACS went silent."""

    code = "pacs_timeout"
    status = 504


class IncompleteRetrieval(PacsError):
    """Not every instance arrived, however often it was asked for."""

    code = "incomplete_retrieval"


class PublisherError(PacsbridgeError):
    """The CD publisher did not take what it was sent."""

    code = "publisher_rejected"
    status = 502


class PublisherUnreachable(PublisherError):
    """No connection to the publisher, or it was lost."""

    code = "publisher_unreachable"


class PublisherRejected(PublisherError):
    """The publisher refused the association or instances."""

    code = "publisher_rejected"


class UpstreamError(PacsbridgeError):
    """The DICOMweb server behind the proxy failed."""

    code = "upstream_unreachable"
    status = 502


class UpstreamUnreachable(UpstreamError):
    """No connection to the DICOMweb server."""

    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """The DICOMweb server did not answer in time."""

    code = "upstream_timeout"
    status = 504
