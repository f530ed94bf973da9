"""Normalise what a user names to a checked URL or an absolute path. Nothing is reached here.

A URL is `s3://bucket/key`, `sftp://user@host:port/path`, or `zip://folder::archive` where the archive is a file on this
machine or one of the others. `zip:///x.zip` and `zip://x.zip` mean all of a local archive.
"""

import os
import posixpath
import re
import sys
from pathlib import Path
from typing import NamedTuple

from batchdigits.errors import UsageError, escaped

S3, SFTP, ZIP = "s3", "sftp", "zip"

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_URL_AS_PATH = re.compile(r"([a-z][a-z0-9+.-]+):(?=/)", re.IGNORECASE)  # a `Path` keeps one slash
_CHAINED = re.compile(r"(.*)::((?:file|s3|sftp)://.*|/.*)", re.IGNORECASE | re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HOST = re.compile(r"(?:([^@:/\s]+)@)?(\[[0-9A-Fa-f:.]+\]|[^@:/\s\[\]]+)(?::([0-9]{1,5}))?")
_BEGINNING = re.compile(  # of a URL, wherever it stands in an argument; a `Path` keeps one slash
    r"(?<![a-z0-9+.-])[a-z0-9+.-]*://|(?<![a-z0-9+./-])(?:-[a-z])?(?:s3|sftp|zip):/", re.IGNORECASE
)
_BETWEEN = re.compile(r"\s(?=(?:s3|sftp|zip)://)", re.IGNORECASE)  # of the URLs of a list in a variable
_IN_ARCHIVE = re.compile(r"/*(.*?)::(?:(?:file|s3|sftp|zip):/.*|/.*)", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(
    r"[?&][^=&/]*(?:(?:secret|passw|passphrase|pwd|token|signature|credential|key)[^=&/]*|pass|sig)=", re.IGNORECASE
)
_ADDRESS = re.compile(r"^\[[0-9a-f:.]*\]", re.IGNORECASE)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ENDPOINT = re.compile(
    rf"https?://(\[[0-9a-f:.]+\]|{_LABEL}(?:\.{_LABEL})*\.?)(?::([0-9]{{1,5}}))?(?:/[^@?#\s]*)?", re.IGNORECASE
)
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
_SSH_PORT, LAST_PORT = 22, 65_535
_KNOWN = "s3://bucket/folder, sftp://user@host/folder or zip://archive.zip"


class Parts(NamedTuple):
    """A normalised URL: the text is `head + path + tail`."""

    scheme: str
    """One of `S3`, `SFTP`, `ZIP`."""
    head: str
    """All up to the path: `s3://bucket/`, `sftp://user@host/`, `zip://`."""
    path: str
    """Of the file or folder: without a slash at its beginning or end; empty for all that there is."""
    tail: str
    """Of a zip, `::` and the archive; else empty."""

    @property
    def url(self) -> str:
        """Put it together again."""
        return f"{self.head}{self.path}{self.tail}"

    @property
    def archive(self) -> str:
        """Of a zip: its URL, or the absolute path of a local one."""
        return self.tail.removeprefix("::").removeprefix("file://")

    def inside(self, rest: str) -> str:
        """Give the URL of what stands in this folder."""
        return self._replace(path=f"{self.path}/{rest}" if self.path else rest).url


class Server(NamedTuple):
    """What an SFTP server is reached by."""

    user: str | None
    host: str
    port: int | None


class Location(NamedTuple):
    """A source as the user names it, and what that means: parsed once, at the beginning of a run."""

    given: str
    """What the user wrote."""
    path: str
    """An absolute path, or a normalised URL."""
    is_remote: bool
    """Whether it is a URL."""


def locate(name: str) -> Location:
    """Tell what a user means by the name of a file or folder.

    Raises:
        UsageError: It is a URL that is not spelled as it has to be.
    """
    found = is_url(name)
    return Location(name, checked(name) if found else os.path.abspath(name), found)  # noqa: PTH100  (Path.absolute keeps `..`)


def is_url(text: str) -> bool:
    """Tell a URL from a path: one of our schemes, or what looks like another and is no file here."""
    match = _URL.match(text)
    return match is not None and (match[1].lower() in (S3, SFTP, ZIP) or not os.path.lexists(text))


def is_remote(path: str) -> bool:
    """Tell a normalised URL from an absolute path."""
    return not path.startswith("/")


def checked(url: str) -> str:
    """Normalise a URL, whose password and the like are refused: others would read them in logs and reports.

    Raises:
        UsageError: It holds one, is of another scheme, or is not spelled as it has to be. No message repeats it.
    """
    match = _URL.match(url)
    assert match, "`is_url` has said so"
    scheme, rest = match[1].lower(), match[2]
    refuse_secrets(url)
    if scheme not in _READERS:
        message = f"{escaped(scheme)}:// is not known; use {_KNOWN}, or the path of a file or folder."
        raise UsageError(message)
    return _READERS[scheme](rest)


def check(*names: str) -> None:
    """Check all that are URLs, as `checked` does, and where S3 is looked for."""
    refuse_secrets(*names)
    urls = [checked(name) for name in names if is_url(name)]
    if any(url.startswith("s3://") or "::s3://" in url for url in urls):
        _check_endpoints()


def refuse_secrets(*texts: str) -> None:
    """Refuse a password or the like in a URL: by itself, or in an argument such as `--model=URL`.

    Raises:
        UsageError: There is one; the message does not repeat it, nor what stands beside it.
    """
    if any(map(_holds_secret, texts)):
        message = (
            "A URL holds a password or a key, which would stand in logs and lists of processes; leave it out, and give "
            "it by the environment, a profile or a key file."
        )
        raise UsageError(message)


def refuse(name: str | Path, what: str) -> None:
    """Refuse a URL where only a file of this machine will do.

    Raises:
        UsageError: It is one; the message does not repeat it, for it may hold a password.
    """
    match = _URL_AS_PATH.match(str(name))
    if match and not os.path.lexists(match[0]):
        message = f"{what} has to be on this machine, and not behind a URL of {match[1]}://; copy it, or name another."
        raise UsageError(message)


def absolute(name: str) -> str:
    """Name a file or folder by a normalised URL, or an absolute path."""
    return locate(name).path


def parts(url: str) -> Parts:
    """Take a normalised URL to pieces."""
    scheme, _, rest = url.partition("://")
    if scheme == ZIP:
        path, archive = _chained(rest)
        return Parts(ZIP, "zip://", path, f"::{archive}")
    place, _, path = rest.partition("/")
    return Parts(scheme, f"{scheme}://{place}/", path, "")


def server(url: str) -> Server:
    """Say what server a normalised URL of SFTP names."""
    match = _HOST.fullmatch(parts(url).head.removeprefix("sftp://").rstrip("/"))
    assert match, "`checked` has said so"
    user, host, port = match.groups()
    return Server(user, host.strip("[]"), int(port) if port else None)


def span(folder: str) -> tuple[str, str]:
    """Give what all paths in a folder begin and end with; it is absolute, or a normalised URL, as they are."""
    if not is_remote(folder):
        return folder.rstrip("/") + "/", ""
    found = parts(folder)
    return f"{found.head}{found.path}".rstrip("/") + "/" if found.path else found.head, found.tail


def encoded(path: str) -> bytes:
    """Spell a path as the file system has it, which is also the order of a ledger."""
    return path.encode(errors="surrogateescape")


def ending_of(path: str) -> str:
    """Give the ending of a path's last part, with its dot, in lower case; empty without one."""
    dot = path.rfind(".")
    return sys.intern(path[dot:].lower()) if dot > path.rfind("/") + 1 else ""


def file_ending(path: str) -> str:
    """Give the ending of a file by its path or its normalised URL, which for a member of an archive names both."""
    return ending_of(parts(path).path if is_remote(path) else path)


def _holds_secret(text: str) -> bool:
    return any(
        _has_password(match[0].rstrip(":/").lower(), part[match.end() :]) or _SECRET.search(part, match.end())
        for part in _BETWEEN.split(text)
        for match in _BEGINNING.finditer(part)
    )


def _has_password(scheme: str, rest: str) -> bool:
    """Tell whether a user has one; only SFTP has users, and `-osftp://` is a scheme too."""
    if scheme.endswith(ZIP):
        match = _IN_ARCHIVE.fullmatch(rest)
        rest = match[1] if match else rest
    elif not scheme.endswith("file"):
        rest = rest.lstrip("/")
    place, _, path = rest.partition("/")
    user, at, _ = place.rpartition("@")
    if at:
        return ":" in user or not scheme.endswith((SFTP, ZIP))
    return ":" in _ADDRESS.sub("", place) and "@" in path  # one that holds a slash, and may begin like a port


def _check_endpoints() -> None:
    for name in _ENDPOINTS:
        value = os.environ.get(name, "")
        match = _ENDPOINT.fullmatch(value)
        if value and not (match and _is_host(match[1]) and _is_port(match[2])):
            message = (
                f"{name} names no server of S3; expected http://host:port or https://host, and no user or password."
            )
            raise UsageError(message)


def _is_host(host: str) -> bool:
    """Tell whether a name can be looked up, or is an address."""
    try:
        if host.startswith("["):
            from ipaddress import IPv6Address

            IPv6Address(host[1:-1])
        host.encode("idna")
    except ValueError:
        return False
    return host.isprintable()


def _is_port(port: str | None) -> bool:
    return port is None or 1 <= int(port) <= LAST_PORT


def _s3(rest: str) -> str:
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        message = "A URL of s3:// does not begin with the name of a bucket; expected s3://bucket/folder, and no user."
        raise UsageError(message)
    return f"s3://{bucket}/{key.rstrip('/')}"


def _sftp(rest: str) -> str:
    place, _, path = rest.partition("/")
    match = _HOST.fullmatch(place)
    user, host, port = match.groups() if match else (None, "", None)
    if not (host and _is_host(host.lower()) and _is_port(port)):
        message = (
            "A URL of sftp:// does not name a server; expected sftp://user@host:port/folder, where user@ and :port may "
            f"be left out, and a port is at most {LAST_PORT}."
        )
        raise UsageError(message)
    at = f"{user}@" if user else ""
    behind = f":{int(port)}" if port and int(port) != _SSH_PORT else ""
    return f"sftp://{at}{host.lower()}{behind}/{posixpath.normpath(f'/{path}').lstrip('/')}"


def _zip(rest: str) -> str:
    if not rest.strip("/:"):
        message = f"A URL of zip:// does not name an archive; expected {_KNOWN.partition(' or ')[2]}."
        raise UsageError(message)
    path, archive = _chained(rest) if _CHAINED.fullmatch(rest) else ("", rest)
    if is_url(archive) and not archive.lower().startswith("file://"):
        return f"zip://{path.strip('/')}::{checked(archive)}"
    local = os.path.abspath(re.sub("^file://", "", archive, flags=re.IGNORECASE))  # noqa: PTH100  (see above)
    return f"zip://{path.strip('/')}::file://{local}"


def _chained(rest: str) -> tuple[str, str]:
    match = _CHAINED.fullmatch(rest)
    assert match, "a normalised URL of a zip names its archive"
    return match[1], match[2]


_READERS = {S3: _s3, SFTP: _sftp, ZIP: _zip}
