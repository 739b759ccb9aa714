"""The way of a print: accession numbers, studies, instances, one order at the CD publisher."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from pacsbridge import metrics
from pacsbridge.dimse.requestor import SendTimeouts
from pacsbridge.dimse.send import Outcome, SendProgress, SendReport, send_instances
from pacsbridge.dimse.tls import ClientTls
from pacsbridge.errors import NotConfigured, PublisherRejected
from pacsbridge.jobs.job import Job, Stage
from pacsbridge.jobs.threads import until_done
from pacsbridge.media.patients import check_one_patient
from pacsbridge.media.transcode import encode_data_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pacsbridge.config import Config
    from pacsbridge.dimse.retrieve import MissingInstances
    from pacsbridge.instance import Instance
    from pacsbridge.jobs.receive import Receiving
    from pacsbridge.jobs.spool import Spool
    from pacsbridge.media.decoders import Decoders

log = structlog.get_logger(__name__)

#: One order at a time: what comes to a robot side by side it may take for one disc.
_ORDERS = 1


class Printer:
    """Sends the studies of jobs to the CD publisher."""

    def __init__(self, config: Config, receiving: Receiving, spool: Spool, decoders: Decoders) -> None:
        self._publisher = config.publisher
        self._fast = config.dimse.fast
        self._calling_ae_title = config.pacs.calling_ae_title
        self._allow_mixed_patients = config.media.allow_mixed_patients
        self._receiving = receiving
        self._spool = spool
        self._decoders = decoders
        self._orders = asyncio.Semaphore(_ORDERS)

    async def send(self, job: Job) -> None:
        """Retrieve everything, then send it to the publisher as one order.

        Raises
        ------
        NotConfigured
            There is no publisher.
        PublisherUnreachable, PublisherRejected
            It did not take everything; the message tells what was sent.
        PacsbridgeError
            Whatever stands in the way of retrieving.
        """
        if not self._publisher.host:
            raise NotConfigured("There is no CD publisher here. Set publisher.host to print.")
        began = time.monotonic()
        studies = await self._receiving.find(job)
        folder = self._spool.folder()
        try:
            received = await self._receiving.receive(job, studies, folder)
            if not self._allow_mixed_patients:
                await asyncio.to_thread(check_one_patient, received.instances)
            report = await self._order(job, received.instances)
        finally:
            await asyncio.shield(asyncio.to_thread(folder.remove))
        job.notes = _notes(report, received.missing)
        log.info(
            "order sent" if not report.failed else "order not sent whole",
            job_id=job.id,
            instances=len(report.results),
            sent=report.sent,
            warnings=report.warnings,
            failed=report.failed,
            associations=report.associations,
            seconds=round(time.monotonic() - began, 2),
        )
        if report.failed:
            raise self._verdict(report)

    async def _order(self, job: Job, instances: Sequence[Instance]) -> SendReport:
        publisher = self._publisher
        cancelled = threading.Event()
        received = job.look()

        def told(progress: SendProgress) -> None:
            job.counted(replace(received, sent=progress.sent, failed=progress.failed))
            job.wrote((progress.sent + progress.failed) / len(instances))

        def bring(instance: Instance) -> Instance:
            return self._decoders.transcode(instance, cancelled.is_set)

        def send() -> SendReport:
            return send_instances(
                instances,
                publisher.host,
                publisher.port,
                publisher.ae_title,
                self._calling_ae_title,
                on_progress=told,
                cancelled=cancelled.is_set,
                timeouts=SendTimeouts(
                    connect=publisher.connect_timeout_seconds,
                    negotiate=publisher.response_timeout_seconds,
                    response=publisher.response_timeout_seconds,
                ),
                transcode=partial(encode_data_set, bring=bring),
                tls=ClientTls.of(publisher.tls, publisher.host),
                fast=self._fast,
            )

        async with self._orders:
            job.enter(Stage.SENDING)
            with self._decoders.in_use():
                report = await until_done(send, cancelled.set)
        job.counted(replace(received, sent=report.sent, failed=report.failed))
        _count(report)
        return report

    def _verdict(self, report: SendReport) -> Exception:
        """Say what was not sent; a lost association says so by itself."""
        told = f"{report.sent} of {len(report.results)} instances were sent, {report.failed} were not"
        if report.error is not None:
            report.error.message += (
                f" {told}: throw the disc away if the publisher made one, and print again."
            )
            return report.error
        reasons = Counter(result.reason for result in report.results if result.outcome is Outcome.FAILED)
        listed = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3))
        return PublisherRejected(
            f"The publisher {self._publisher.ae_title} did not take everything: {told} ({listed}). "
            "Throw the disc away if it made one, and look into its log."
        )


def _notes(report: SendReport, missing: Sequence[MissingInstances]) -> tuple[str, ...]:
    notes = []
    if report.warnings:
        reasons = sorted({result.reason for result in report.results if result.outcome is Outcome.WARNING})
        notes.append(f"{report.warnings} instances were taken with a warning: {'; '.join(reasons)}")
    if missing:
        notes.append(f"The order is not complete: the PACS did not send all of {len(missing)} series.")
    if report.associations > 1:
        notes.append(f"It took {report.associations} associations: the publisher may make as many discs.")
    return tuple(notes)


def _count(report: SendReport) -> None:
    for outcome, count in Counter(result.outcome for result in report.results).items():
        metrics.INSTANCES_SENT.labels(outcome).inc(count)
    for result in report.results:
        if result.outcome is not Outcome.FAILED:
            metrics.BYTES_SENT.inc(result.instance.size)
        elif result.status is not None:
            metrics.DIMSE_FAILURES.labels("C-STORE", f"0x{result.status:04X}").inc()
