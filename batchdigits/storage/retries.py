"""Try operations on a network again where that may help, and say in one sentence what is wrong where it does not.

The one place that tries again: what the libraries below do of their own is turned off. Errors are told apart by the
names of their classes, so that no library has to be imported for it.
"""

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from batchdigits.errors import Fault, FaultKind, StorageError, escaped
from batchdigits.storage.urls import Parts

_Result = TypeVar("_Result")
_Store = TypeVar("_Store")
_Rest = ParamSpec("_Rest")

ATTEMPTS = 5
"""How often something is tried."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 5.0  # seconds; each is twice the one before, and up to half a second by chance

_TRANSIENT = frozenset(
    {
        *("ConnectionError", "TimeoutError", "gaierror"),  # Python's
        *("ClientConnectionError", "ClientPayloadError", "HTTPClientError", "ResponseStreamingError"),  # of S3
        *("DisconnectError", "ChannelOpenError", "SFTPConnectionLost", "SFTPNoConnection"),  # of SFTP
    }
)
_LASTING = frozenset(
    {
        *("HostKeyNotVerifiable", "KeyExchangeFailed", "PermissionDenied", "IllegalUserName", "SSLError"),
        "ProtocolError",  # how OpenSSH ends a login with too many wrong keys
    }
)
_MISSING = frozenset({"FileNotFoundError", "SFTPNoSuchFile", "SFTPNoSuchPath", "SFTPNotADirectory"})
_FORBIDDEN = frozenset({"PermissionError", "PermissionDenied", "SFTPPermissionDenied", "SFTPWriteProtect"})
_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
)
_BAD_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidClientTokenId"}
)
_BUSY_CODES = frozenset(
    {
        *("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling"),
        *("BadDigest", "IncompleteBody"),  # an upload that was damaged on its way
    }
)
_OF_ONE_FILE = frozenset({"SFTPError", "ClientError"})
_KNOWN = _TRANSIENT | _LASTING | _OF_ONE_FILE | _NO_CREDENTIALS | {"OSError", "BotoCoreError"}

_CLOCK = "RequestTimeTooSkewed"
_ENVIRONMENT = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


class Missing(StorageError):
    """What was asked for does not exist."""


def in_event_loop(operation: Coroutine[Any, Any, _Result]) -> _Result:
    """Carry an operation out in the thread of fsspec's event loop, and wait for it."""
    import asyncio

    from fsspec.asyn import get_loop

    future = asyncio.run_coroutine_threadsafe(operation, get_loop())
    try:
        return future.result()
    finally:
        future.cancel()  # where a signal ended the waiting


def run(operation: Callable[[], Awaitable[_Result]], url: str, verb: str) -> _Result:
    """Carry an operation out, with retries.

    Args:
        operation: Begins it; called once an attempt.
        url: What it is about, normalised.
        verb: What could not be done to it: `read`, `written` or `listed`.

    Raises:
        Missing: It does not exist.
        StorageError: All attempts failed, or another would.
    """
    try:
        return in_event_loop(with_retries(operation))
    except StorageError:
        raise
    except Exception as error:
        if not is_known(error):
            raise
        raise storage_error(error, url, verb) from error


def retried(
    verb: str,
) -> Callable[
    [Callable[Concatenate[_Store, Parts, _Rest], Coroutine[Any, Any, _Result]]],
    Callable[Concatenate[_Store, Parts, _Rest], _Result],
]:
    """Decorate a method that makes one attempt at a place, so that it makes several, as `run` does."""

    def decorated(
        attempt: Callable[Concatenate[_Store, Parts, _Rest], Coroutine[Any, Any, _Result]],
    ) -> Callable[Concatenate[_Store, Parts, _Rest], _Result]:
        @functools.wraps(attempt)
        def wrapped(self: _Store, place: Parts, /, *args: _Rest.args, **kwargs: _Rest.kwargs) -> _Result:
            return run(lambda: attempt(self, place, *args, **kwargs), place.url, verb)

        return wrapped

    return decorated


async def with_retries(operation: Callable[[], Awaitable[_Result]]) -> _Result:
    """Try again, after a while, what fails for a reason that may pass; raise what the last attempt did."""
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

    retrying = AsyncRetrying(
        retry=retry_if_exception(is_transient),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT) + wait_random(max=_FIRST_WAIT),
        reraise=True,
    )
    async for attempt in retrying:
        with attempt:
            return await operation()
    raise AssertionError  # the last attempt has raised


def is_transient(error: BaseException) -> bool:
    """Tell whether the same may succeed a little later."""
    code, status = _answer(error)
    if status:
        return code in _BUSY_CODES or status == 429 or (status >= 500 and status != 501)
    return bool(_kinds(error) & _TRANSIENT) and not _kinds(error) & _LASTING


def is_known(error: Exception) -> bool:
    """Tell what storage, a network or an account is the cause of from a fault of this program."""
    return bool(_kinds(error) & _KNOWN)


def is_refused(error: BaseException) -> bool:
    """Tell whether S3 says that these credentials do not open something."""
    return _answer(error)[0] == "AccessDenied"


def fault(error: Exception) -> Fault | None:
    """Say what is wrong with one file; None where it is not about that file alone, so that the run has to end."""
    kinds, (code, status) = _kinds(error), _answer(error)
    ends_all = is_transient(error) or kinds & _LASTING or code in _BAD_CREDENTIALS | {"NoSuchBucket", _CLOCK}
    if ends_all or not (status or kinds & _OF_ONE_FILE):
        return None
    if kinds & _MISSING:
        return Fault(FaultKind.UNREADABLE, "cannot be opened: it was deleted or renamed after it was found")
    if code == "InvalidObjectState":
        return Fault(FaultKind.UNREADABLE, "cannot be opened: its storage class is an archive; restore it first")
    why = "permission denied" if kinds & _FORBIDDEN else code or type(error).__name__
    return Fault(FaultKind.UNREADABLE, f"cannot be opened: {escaped(why)}")


def storage_error(error: Exception, url: str, verb: str) -> StorageError:
    """Say what is wrong in one sentence, of our own words alone: those of servers and libraries may hold anything."""
    if _kinds(error) & _MISSING:
        what = "The bucket of " if _answer(error)[0] == "NoSuchBucket" else ""
        return Missing(f"{what}{escaped(url)} does not exist; check its spelling.")
    return StorageError(f"{escaped(url)} cannot be {verb}: {_reason(error, is_s3='s3://' in url)}.")


def _reason(error: Exception, *, is_s3: bool) -> str:
    kinds, (code, status) = _kinds(error), _answer(error)
    if kinds & _NO_CREDENTIALS:
        return f"there are no credentials; set {_ENVIRONMENT}"
    if code in _BAD_CREDENTIALS:
        return f"the credentials are wrong or have expired; check {_ENVIRONMENT}"
    if "HostKeyNotVerifiable" in kinds:
        return (
            "the server's host key is unknown or has changed; compare it with its owner, and enter it in "
            "~/.ssh/known_hosts"
        )
    if code == _CLOCK:
        return "the clock of this machine differs from the server's; set it"
    if "ProtocolError" in kinds:
        return f"the server ended the session; check {_OF_SFTP}, which may offer too many keys"
    if kinds & _FORBIDDEN or status == 403:
        return "there is no permission to; check " + (f"{_ENVIRONMENT}, and what they allow" if is_s3 else _OF_SFTP)
    if "SSLError" in kinds:
        return "the server's certificate is not trusted; check its address, and AWS_CA_BUNDLE"
    if "SFTPOpUnsupported" in kinds:
        return "the server cannot replace a file whole; choose another one"
    if "SFTPNoSpaceOnFilesystem" in kinds or "SFTPQuotaExceeded" in kinds:
        return "the server's disk is full; free some space"
    if is_transient(error):
        settings = "AWS_ENDPOINT_URL" if is_s3 else "the server's name and port"
        what = f"the server answers {escaped(code or str(status))}" if status else "the server cannot be reached"
        return f"{what}, after several tries; check the network and {settings}, and run again"
    what = f"the server answers {escaped(code or type(error).__name__)}"
    return f"{what}; check the name and the server"


_OF_SFTP = "the user's name, its key in ~/.ssh or the agent, and the permissions there"


def _kinds(error: BaseException) -> set[str]:
    """Name the classes of an error, and of what a library wrapped into it."""
    return {kind.__name__ for raised in (error, error.__cause__) for kind in type(raised).__mro__}


def _answer(error: BaseException) -> tuple[str, int]:
    """Give the code and the status of HTTP with which S3 answered; empty and 0 where it did not."""
    for raised in (error, error.__cause__):
        response = getattr(raised, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return str(response.get("Error", {}).get("Code", "")), int(status)
    return "", 0
