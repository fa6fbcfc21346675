"""The object store as an S3 bucket: AWS, SeaweedFS, Ceph, MinIO, by the `minio` client.

    S3Store.from_settings(settings)      "s3://bucket" at P2M_S3_ENDPOINT; no request is made before the first operation

The bucket is made by the first write that misses it. A refused or broken connection is tried three times within some
seconds; a server that has answered before is waited for as `patience` says; then it is Unavailable with the endpoint's
name.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import certifi
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.util import Retry, Timeout

from services.kit.artifacts import Entry, check_key, check_prefix
from services.kit.errors import (
    DiskFull,
    FailedPrecondition,
    NotFound,
    P2MError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    from_os_error,
)
from services.kit.files import replacing
from services.kit.patience import Patience, patient
from services.kit.settings import Settings

# A part is held in memory, three at a time; S3 takes at most 10,000 parts: 160 GB.
_PART_BYTES = 16 << 20
_ABSENT = frozenset({"NoSuchKey", "NoSuchBucket", "ResourceNotFound", "NoSuchObject"})
_WRONG_KEY = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"})
_FULL = frozenset({"XMinioStorageFull", "QuotaExceeded", "EntityTooLarge"})


class S3Store:
    """Keys are objects of one bucket; S3 itself makes every write atomic."""

    def __init__(self, client: Minio, bucket: str, endpoint: str, region: str, patience_s: float = 0.0) -> None:
        self.patience = Patience(patience_s)
        self._client = client
        self._bucket = bucket
        self._region = region
        self._where = f"the bucket {bucket} at {endpoint}"

    @classmethod
    def from_settings(cls, settings: Settings) -> S3Store:
        """The bucket that the settings name. FailedPrecondition where they are no endpoint or no bucket's name."""
        bucket = settings.store.removeprefix("s3://").rstrip("/")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
            raise FailedPrecondition("BAD_STORE", f"P2M_STORE is {settings.store!r}; wanted s3://<bucket> or a folder.")
        if not re.fullmatch(r"[A-Za-z0-9.\[\]:-]+", settings.s3_endpoint):
            raise FailedPrecondition(
                "NO_S3_ENDPOINT", f"P2M_S3_ENDPOINT is {settings.s3_endpoint!r}; wanted host:port of the S3 server."
            )
        retries = Retry(
            total=2,
            backoff_factor=0.2,
            status_forcelist=(500, 502, 503, 504),
            allowed_methods=None,
            raise_on_status=False,
        )
        pool = urllib3.PoolManager(
            timeout=Timeout(connect=2.0, read=30.0), retries=retries, maxsize=16, ca_certs=certifi.where()
        )
        client = Minio(
            settings.s3_endpoint,
            access_key=settings.s3_access_key or None,
            secret_key=settings.s3_secret_key.get_secret_value() or None,
            secure=settings.s3_secure,
            region=settings.s3_region,
            http_client=pool,
        )
        return cls(client, bucket, settings.s3_endpoint, settings.s3_region, settings.store_patience_s)

    @patient
    def put(self, key: str, data: bytes) -> None:
        check_key(key)
        self._write(
            f"Writing {key}",
            lambda: self._client.put_object(self._bucket, key, io.BytesIO(data), len(data), part_size=_PART_BYTES),
        )

    @patient
    def put_file(self, key: str, path: Path) -> None:
        check_key(key)
        self._write(
            f"Writing {key}", lambda: self._client.fput_object(self._bucket, key, str(path), part_size=_PART_BYTES)
        )

    @patient
    def get(self, key: str) -> bytes:
        with self._object(key) as response:
            return response.read()

    @patient
    def get_file(self, key: str, path: Path) -> None:
        with self._object(key) as response, replacing(path) as temporary, temporary.open("wb") as file:
            shutil.copyfileobj(response, file, 1 << 20)

    def size(self, key: str) -> int | None:
        found = self.stat(key)
        return None if found is None else found.size

    @patient
    def stat(self, key: str) -> Entry | None:
        check_key(key)
        try:
            with self._errors(f"Looking for {key}"):
                found = self._client.stat_object(self._bucket, key)
        except NotFound:
            return None
        return Entry(key, found.size or 0, found.last_modified.timestamp() if found.last_modified else 0.0)

    @patient
    def list(self, prefix: str) -> list[str]:
        check_prefix(prefix)
        try:
            with self._errors(f"Listing {prefix}"):
                found = self._client.list_objects(self._bucket, prefix=prefix, recursive=True)
                return sorted(item.object_name for item in found if item.object_name and not item.is_dir)
        except NotFound:
            return []

    def entries(self, prefix: str) -> Iterator[Entry]:
        check_prefix(prefix)
        with contextlib.suppress(NotFound), self._errors(f"Listing {prefix}"):
            for item in self._client.list_objects(self._bucket, prefix=prefix, recursive=True):
                if item.object_name and not item.is_dir:
                    modified = item.last_modified.timestamp() if item.last_modified else 0.0
                    yield Entry(item.object_name, item.size or 0, modified)

    @patient
    def delete(self, key: str) -> None:
        check_key(key)
        with contextlib.suppress(NotFound), self._errors(f"Deleting {key}"):
            self._client.remove_object(self._bucket, key)

    @contextlib.contextmanager
    def _object(self, key: str) -> Iterator[urllib3.BaseHTTPResponse]:
        check_key(key)
        with self._errors(f"Reading {key}"):
            response = self._client.get_object(self._bucket, key)
            try:
                yield response
            finally:
                response.close()
                response.release_conn()

    def _write(self, doing: str, write: Callable[[], object]) -> None:
        try:
            with self._errors(doing):
                write()
        except NotFound:
            with self._errors(f"Making {self._where}"):
                self._make_bucket()
            with self._errors(doing):
                write()

    def _make_bucket(self) -> None:
        try:
            self._client.make_bucket(self._bucket, self._region)
        except S3Error as error:
            # Somebody else, or a sibling's first write, was quicker.
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            raise self._meaning(error, doing) from error
        except (ServerError, InvalidResponseError, urllib3.exceptions.HTTPError) as error:
            raise Unavailable(
                "STORE_UNREACHABLE", f"{doing}: {self._where} is out of reach ({_cause(error)}). Is the S3 server up?"
            ) from error
        except OSError as error:
            raise from_os_error(error, doing) from error

    def _meaning(self, error: S3Error, doing: str) -> P2MError:
        said = f"{doing}: {self._where} said {error.code}: {error.message}"
        if error.code in _ABSENT:
            return NotFound("NO_SUCH_KEY", f"{doing}: there is no such object in {self._where}.")
        if error.code in _WRONG_KEY:
            return Unauthenticated("WRONG_S3_KEY", f"{said}. Check P2M_S3_ACCESS_KEY and P2M_S3_SECRET_KEY.")
        if error.code == "AccessDenied":
            return PermissionDenied("S3_ACCESS_DENIED", f"{said}. Check what P2M_S3_ACCESS_KEY may do.")
        if error.code in _FULL:
            return DiskFull(f"{said}. Free some space and run the same command again.")
        if error.response.status >= 500 or error.response.status == 429:
            return Unavailable("STORE_UNREACHABLE", f"{said}.")
        return FailedPrecondition("S3_REFUSED", f"{said}.")


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).splitlines()[0][:200]
