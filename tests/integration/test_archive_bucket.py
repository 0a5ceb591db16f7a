"""The archive's bucket when it refuses, and when it breaks off: errors that say that the same may succeed later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet
import pytest

from prooftrail import aws, parquet
from prooftrail.archive_bucket import ArchiveBucket, Version
from prooftrail.aws import AwsUnavailable
from prooftrail.errors import ArchiveMismatch
from tests.integration.conftest import denied

KEY = "tenant=acme/one.parquet"
NONE = Version("none", 5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(b"hello")
    return file


ALL: dict[str, Callable[[ArchiveBucket, Path], object]] = {
    "put": lambda bucket, file: bucket.put(KEY, file),
    "replace": lambda bucket, file: bucket.replace(KEY, file, NONE),
    "find": lambda bucket, _: bucket.find(KEY),
    "versions": lambda bucket, _: bucket.versions(KEY),
    "fetch": lambda bucket, file: bucket.fetch(KEY, NONE, file),
    "read": lambda bucket, _: bucket.read(KEY, NONE, 0, 5),
    "remove": lambda bucket, _: bucket.remove(KEY, NONE),
}


@pytest.mark.parametrize("call", ALL.values(), ids=ALL.keys())
def test_a_bucket_that_is_away_may_answer_later(
    bucket: str, file: Path, call: Callable[[ArchiveBucket, Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setattr(aws, "TRIES", 1)
    with pytest.raises(AwsUnavailable, match=r"one\.parquet .*archive bucket: Could not connect"):
        call(ArchiveBucket(bucket), file)


def test_an_object_that_nobody_may_read_is_not_one_that_is_gone(bucket: str, file: Path) -> None:
    archive = ArchiveBucket(bucket)
    archive.put(KEY, file)
    version = archive.find(KEY)
    assert version is not None
    with denied(bucket, KEY):
        with pytest.raises(AwsUnavailable, match="Forbidden"):
            archive.fetch(KEY, version, file)
        with pytest.raises(AwsUnavailable, match="Forbidden"):
            archive.read(KEY, version, 0, 2)
    assert archive.fetch(KEY, version, file) is not None
    boto3.client("s3").delete_object(Bucket=bucket, Key=KEY, VersionId=str(version.id))
    assert (archive.find(KEY), archive.fetch(KEY, version, file)) == (None, None)


def test_what_lies_there_already_stays(bucket: str, file: Path) -> None:
    archive = ArchiveBucket(bucket)
    archive.put(KEY, file)
    file.write_bytes(b"other")
    archive.put(KEY, file)
    (version,) = archive.versions(KEY)
    assert archive.read(KEY, version, 0, 5) == b"hello"


@pytest.fixture
def breaking_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An S3 that says how long an object is, and ends in the middle of it."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.send_header("ETag", '"one"')
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(b"x" * 10)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("breaking_off")
def test_an_object_that_breaks_off_may_be_whole_later(file: Path) -> None:
    archive = ArchiveBucket("broken")
    with pytest.raises(AwsUnavailable, match=KEY):
        archive.fetch(KEY, NONE, file)
    with pytest.raises(AwsUnavailable, match=KEY):
        archive.read(KEY, NONE, 0, 1000)


def test_parquet_whose_pages_are_damaged_is_a_mismatch_like_what_is_no_parquet(tmp_path: Path) -> None:
    file = tmp_path / "damaged.parquet"
    pyarrow.parquet.write_table(pa.table({"number": range(20_000)}), file, compression="zstd")
    magic = (0xFD2FB528).to_bytes(4, "little")  # of a zstd frame
    file.write_bytes(file.read_bytes().replace(magic, bytes(4)))
    with pytest.raises(ArchiveMismatch, match="expected Parquet"):
        sum(batch.num_rows for batch in parquet.batches(file))
