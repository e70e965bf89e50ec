"""What a message's terms (model/envelope.Terms) ask of the connection that it leaves over, and of how that ended."""

from typing import Final

from fastmta.delivery.job import Job
from fastmta.model.envelope import Terms
from fastmta.model.reply import Reply
from fastmta.smtp.client_connection import Connection

MOST_BY_S: Final = 999_999_999  # RFC 2852 §4
TIME_IS_OVER: Final = Reply(550, "5.4.7", "Delivery time expired")


def count_down(job: Job, terms: Terms, now_s: float) -> None:
    """Notes what is left of the job's time; one that comes back when it is over is decided."""
    if not terms.by_mode:
        return
    left_s = terms.deliver_by_ms / 1000 - now_s
    job.by = b"BY=%d;%b" % (max(-MOST_BY_S, int(left_s)), terms.by_mode.encode())
    if terms.returns and left_s < 1:
        job.decide(TIME_IS_OVER)
        job.kept_back = True


def fits(connection: Connection, job: Job) -> bool:
    """Whether a connection that is there may carry the job: it has its login, and its proof of who the server is."""
    return connection.login == job.login and (not job.requires_tls or connection.client.proved)


def refused(connection: Connection, job: Job, failure: Reply) -> Reply:
    """What a session that failed means for a job: 5.7.30 where it requires TLS and the server has none, or a
    certificate that is not good; not where it broke off, or where another server may do when it is there again.
    """
    is_wrong = connection.tls_problem.startswith("certificate-") or failure.text.endswith("not verified")
    if not job.requires_tls or not (failure.enhanced == "4.7.4" or (connection.tls_failed and is_wrong)):
        return failure
    if job.failure is not None and job.failure.is_temporary:
        return job.failure
    return Reply(550, "5.7.30", f"REQUIRETLS, but {failure.text}")
