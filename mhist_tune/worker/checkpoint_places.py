"""Opens the place of the checkpoints: a folder, or a bucket of an S3-compatible store."""

import contextlib
import math
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from mhist_tune.errors import StorageError, StoreUnreachableError, UsageError
from mhist_tune.filesystems import network_file_system
from mhist_tune.training.checkpoints.files import Files, Folder

if TYPE_CHECKING:
    from optuna.artifacts import Boto3ArtifactStore

    from mhist_tune.training.checkpoints.store import CheckpointStore

_FORMS = "a folder, or s3://BUCKET/PREFIX"
_CONNECT_S = 10
_READ_S = 60
_N_ATTEMPTS = 5
_GB = 1e9


def open_checkpoints(place: str | None, root: Path, budget_gb: float | None = None) -> "CheckpointStore":
    """Return the store of checkpoints at a place.

    Args:
        place: see `open_files`.
        root: the storage folder.
        budget_gb: the space in GB (1e9 bytes) that all checkpoints there may take; None for no limit.

    Raises:
        UsageError: as in `open_files`.
    """
    from mhist_tune.training.checkpoints.store import CheckpointStore  # loads torch

    budget = None if budget_gb is None else math.floor(budget_gb * _GB)
    return CheckpointStore(open_files(place, root), budget)


def open_files(place: str | None, root: Path) -> Files:
    """Return the files at a place of checkpoints.

    Args:
        place: `s3://BUCKET/PREFIX` or a folder; None for the folder `checkpoints` in `root`.
        root: the storage folder.

    Raises:
        UsageError: the place cannot be read, or boto3 is missing.
    """
    if place is None or "://" not in place:
        path = (root / "checkpoints" if place is None else Path(place)).absolute()
        try:
            # A folder on a network file system is the same on every machine that mounts it at this path.
            is_shared = network_file_system(path) is not None
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name that is too long or has a NUL
            raise UsageError(f"--checkpoints cannot be {place}: {error}", hint=_FORMS) from error
        return Folder(path, str(path) if is_shared else f"{socket.gethostname()}:{path}")
    try:
        url = urlsplit(place)
    except ValueError as error:
        raise UsageError(f"--checkpoints cannot be read: {error}", hint=_FORMS) from error
    if url.scheme != "s3" or not url.hostname or "@" in url.netloc or url.query:
        raise UsageError(
            f"--checkpoints cannot be a {url.scheme}:// place of this form",
            hint=f"{_FORMS}; boto3 finds keys, region and endpoint in AWS_* variables or in ~/.aws",
        )
    return Bucket(url.netloc, url.path.strip("/"))


def require_answer(files: Files) -> None:
    """Raise StorageError if a place of checkpoints refuses what is asked, for example because of missing keys.

    An unreachable store raises nothing: a worker waits for it.
    """
    with contextlib.suppress(StoreUnreachableError):
        files.sizes(f"{uuid.uuid4().hex}/")  # a prefix that no file has, so that the answer is short


def open_recorded(place: str) -> Files | None:
    """Return the files at a recorded place, see `Files.place`; None if it is a folder of another machine.

    Raises:
        UsageError: as in `open_files`.
    """
    files = open_files(place.removeprefix(f"{socket.gethostname()}:"), Path())
    return files if files.place == place else None


class Bucket:
    """Files below a prefix of a bucket. The store itself never shows a part of a file.

    boto3 finds the credentials, the region and the endpoint in its environment variables and files.

    Args:
        bucket: the name of the bucket.
        prefix: the start of every file name, without a slash at either end; may be empty.

    Raises:
        UsageError: boto3 is missing.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self.place = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._store: Boto3ArtifactStore = _artifact_store(bucket, self.place)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the size in bytes of each file below a prefix, by name."""
        with self._errors_translated():
            pages = self._store.client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            objects: list[Any] = [item for page in pages for item in page.get("Contents", [])]
        return {item["Key"].removeprefix(self._prefix): item["Size"] for item in objects}

    def read(self, name: str) -> bytes:
        """Return a file's content, or raise FileNotFoundError."""
        from optuna.artifacts.exceptions import ArtifactNotFound

        try:
            with self._errors_translated(), contextlib.closing(self._store.open_reader(self._prefix + name)) as body:
                return body.read()
        except ArtifactNotFound as error:
            raise FileNotFoundError(name) from error

    def write(self, name: str, body: BinaryIO) -> None:
        """Upload a file, in parts if it is large."""
        with self._errors_translated():
            self._store.write(self._prefix + name, body)

    def remove(self, name: str) -> None:
        """Remove a file."""
        with self._errors_translated():
            self._store.remove(self._prefix + name)

    @contextlib.contextmanager
    def _errors_translated(self) -> Iterator[None]:
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError, S3UploadFailedError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            if _is_refusal(error):
                raise StorageError(
                    f"cannot use the checkpoints in {self.place}: {reason}",
                    hint="are the bucket's name, the keys and the region that boto3 finds right?",
                ) from error
            raise StoreUnreachableError(
                f"the checkpoints in {self.place} cannot be reached: {reason}", hint="is the endpoint running?"
            ) from error


def _artifact_store(bucket: str, place: str) -> "Boto3ArtifactStore":
    from optuna.artifacts import Boto3ArtifactStore

    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise UsageError(f"{place} needs boto3", hint='pip install "mhist-tune[s3]"') from None
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "max_attempts": _N_ATTEMPTS},
        request_checksum_calculation="when_required",  # some S3-compatible stores do not know the newer checksums
        response_checksum_validation="when_required",
    )
    try:
        client = boto3.client("s3", config=config)
    except (BotoCoreError, ValueError) as error:  # ValueError: of an endpoint
        raise UsageError(f"cannot use {place}: {error}", hint="see the AWS_* variables and ~/.aws") from error
    return Boto3ArtifactStore(bucket, client, avoid_buf_copy=True)


def _is_refusal(error: Exception) -> bool:
    """Return whether the store refuses the request, so that waiting does not help."""
    from botocore.exceptions import ClientError, NoCredentialsError, ParamValidationError, PartialCredentialsError

    causes = (error, error.__context__)  # a failed upload wraps its cause
    if any(isinstance(cause, (NoCredentialsError, PartialCredentialsError, ParamValidationError)) for cause in causes):
        return True
    cause = next((cause for cause in causes if isinstance(cause, ClientError)), None)
    if cause is None:
        return False
    code: int = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return 400 <= code < 500 and code not in (408, 409, 429)
