"""What is counted while the service runs, in Prometheus's terms. Every room may count; nobody reads here."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

JOBS_ENDED = Counter("pacsbridge_jobs_ended", "Jobs that came to a final state", ["kind", "state"])
STAGE_SECONDS = Histogram(
    "pacsbridge_job_stage_seconds",
    "How long jobs spend in each stage",
    ["kind", "stage"],
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
)
INSTANCES_RECEIVED = Counter("pacsbridge_instances_received", "Instances stored by the Storage SCP for a job")
BYTES_RECEIVED = Counter("pacsbridge_received_bytes", "Bytes of data sets received for a job")
INSTANCES_SENT = Counter("pacsbridge_instances_sent", "Instances sent to the publisher", ["outcome"])
BYTES_SENT = Counter("pacsbridge_sent_bytes", "Bytes of the files sent to the publisher")
DIMSE_FAILURES = Counter(
    "pacsbridge_dimse_failures",
    "DIMSE operations that ended with another status than success",
    ["operation", "status"],
)
HTTP_REQUESTS = Counter("pacsbridge_http_requests", "HTTP requests", ["method", "route", "status"])
HTTP_SECONDS = Histogram(
    "pacsbridge_http_request_seconds",
    "How long HTTP requests take, streaming included",
    ["route"],
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 5, 20, 60, 300, 1200),
)
