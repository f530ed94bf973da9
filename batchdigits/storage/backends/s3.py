"""Reach S3: list objects, read them, and upload them whole."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from batchdigits.errors import StorageError, escaped
from batchdigits.storage.backends.base import Enters, Entry, entered, sha256_of, version
from batchdigits.storage.retries import Missing, retried, run
from batchdigits.storage.urls import Parts

AT_A_TIME = 32
"""Requests of one process, at most."""

_CONNECT_SECONDS, _READ_SECONDS = 5, 15  # that a server may say nothing until an attempt has failed
_PAGE_KEYS = 1000  # what a listing gives at a time, at most
_UPLOAD_BYTES = 16 * 2**20  # of the parts that a large report is sent in


class S3:
    """The buckets that the credentials of the environment open."""

    def __init__(self, _: str) -> None:
        """Reach nothing yet.

        Raises:
            ImportError: The extra is not installed.
        """
        from s3fs import S3FileSystem

        self._files = S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            config_kwargs={
                "retries": {"max_attempts": 0},
                "max_pool_connections": AT_A_TIME,
                "connect_timeout": _CONNECT_SECONDS,
                "read_timeout": _READ_SECONDS,
            },
        )
        self._files.retries = 1  # `retries` alone tries again

    def listed(self, place: Parts, enters: Enters) -> Iterator[Entry]:
        """List what begins with a path, page by page; no object is asked about by itself.

        Raises:
            StorageError: Nothing does, or it cannot be listed.
        """
        prefix = f"{place.path}/" if place.path else ""
        pages = filter(None, self._pages(place, prefix))  # one that is empty may have others after it
        first = next(pages, [])
        if prefix and not first:
            alone = next(self._pages(place, place.path, most=1))
            if not alone or alone[0]["Key"] != place.path:
                message = f"{escaped(place.url)} does not exist: no object is named so; check its spelling."
                raise Missing(message)
            first, prefix = alone, place.path
        objects = (found for page in chain([first], pages) for found in page)
        files = (
            Entry(found["Key"].removeprefix(prefix), found["Size"], version(found["ETag"]))
            for found in objects
            if not found["Key"].endswith("/")  # which stands for a folder
        )
        yield from entered(files, enters)

    def _pages(self, place: Parts, prefix: str, most: int = _PAGE_KEYS) -> Iterator[list[dict[str, Any]]]:
        """Give a listing page by page; one page at least."""
        more: dict[str, str] = {}
        while True:
            page = run(lambda: self._page(place, prefix, most, more), place.url, "listed")  # noqa: B023  (called at once)
            yield page.get("Contents", [])
            if most < _PAGE_KEYS or not page.get("NextContinuationToken"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def _page(self, place: Parts, prefix: str, most: int, more: dict[str, str]) -> dict[str, Any]:
        files = await self._connected()
        page: dict[str, Any] = await files._call_s3(
            "list_objects_v2", Bucket=_bucket(place), Prefix=prefix, MaxKeys=most, **more
        )
        return page

    async def get(self, place: Parts, most_bytes: int) -> bytes | None:
        """Try once to read an object; None where it is larger than that."""
        answer = await self._get(place)
        async with answer["Body"] as body:
            return None if answer["ContentLength"] > most_bytes else bytes(await body.read())

    @retried("read")
    async def part(self, place: Parts, start: int, stop: int) -> bytes:
        """Read some of an object."""
        answer = await self._get(place, Range=f"bytes={start}-{stop - 1}")
        async with answer["Body"] as body:
            return bytes(await body.read())

    @retried("read")
    async def size(self, place: Parts) -> int | None:
        """Give the size of an object; None where there is none."""
        return await self._size(place)

    async def _size(self, place: Parts) -> int | None:
        page = await self._page(place, place.path, 1, {})
        found = next(iter(page.get("Contents", [])), None)
        return int(found["Size"]) if found and found["Key"] == place.path else None

    @retried("listed")
    async def stands(self, place: Parts) -> bool:
        """Tell whether an object has this name, or any lies below it."""
        below = await self._page(place, f"{place.path}/" if place.path else "", 1, {})
        return bool(below.get("Contents")) or (bool(place.path) and await self._size(place) is not None)

    @retried("read")
    async def sha256(self, place: Parts) -> str:
        """Compute the SHA-256 of an object in constant memory."""
        answer = await self._get(place)
        async with answer["Body"] as body:
            return await sha256_of(body)

    async def _get(self, place: Parts, **more: str) -> dict[str, Any]:
        files = await self._connected()
        answer: dict[str, Any] = await files._call_s3("get_object", Bucket=_bucket(place), Key=place.path, **more)
        return answer

    @retried("written")
    async def put(self, place: Parts, draft: Path) -> None:
        """Make a finished file an object: it takes its name when all of it has come, or never."""
        import mimetypes

        kind = mimetypes.guess_type(place.path)[0] or "application/octet-stream"
        files = await self._connected()
        await files._put_file(str(draft), _name(place), chunksize=_UPLOAD_BYTES, ContentType=kind)

    @retried("written")
    async def copy(self, place: Parts, old: Parts) -> None:
        """Give an object a second name."""
        files = await self._connected()
        await files._cp_file(_name(old), _name(place))

    @retried("written")
    async def check_folder(self, place: Parts) -> None:
        """Find trouble with a report before there is one to write: the bucket exists and lets us in."""
        await self._page(place, place.path, 1, {})

    async def _connected(self) -> Any:
        """Give what reaches S3, where the files of the AWS configuration can be used.

        Raises:
            StorageError: One names no server; the library's message would repeat it, and a password in it.
        """
        try:
            await self._files.set_session()
        except ValueError as error:
            message = (
                "The AWS configuration cannot be used: a value in ~/.aws/config, such as endpoint_url, is not spelled "
                "as it has to be; expected http://host:port or https://host for a server."
            )
            raise StorageError(message) from error
        return self._files


def _bucket(place: Parts) -> str:
    return place.head.removeprefix("s3://").rstrip("/")


def _name(place: Parts) -> str:
    """Name an object as s3fs does."""
    return f"{_bucket(place)}/{place.path}"
