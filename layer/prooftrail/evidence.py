"""Evidence: the bucket of signed checkpoints and tiles, where what is once written stays as it is, by Object Lock.

It is the authority on what a log was; PostgreSQL only remembers how far it came. Keys of a tenant's log:

    <tenant>/checkpoint/<size, 20 digits>   the signed note; the last key is the latest checkpoint
    <tenant>/tile/<L>/<N>[.p/<W>]           the tiles of every size that has a checkpoint (C2SP tlog-tiles)

A tile may lie there before the checkpoint that needs it; it proves nothing until the root of that is derived from it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prooftrail import aws
from prooftrail.errors import PermanentError
from prooftrail.ledger import merkle, tiles
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.note import Note
from prooftrail.ledger.tiles import Tile

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LARGEST = 2**63  # no log has so many entries
TILES_KEPT = 512  # full tiles of 8 KiB that a warm function keeps


class EvidenceConflict(PermanentError):
    """What lies in the bucket is not what must lie there; nothing was overwritten."""


class EvidenceMissing(PermanentError):
    """The bucket does not hold a tile or a checkpoint that must be there."""


class Evidence:
    """The evidence bucket; `client` is boto3's for S3, made on first use where none is given. For many threads at once."""

    def __init__(self, bucket: str, client: S3Client | None = None) -> None:
        self._bucket = bucket
        self._given = client
        self._full_tile = functools.lru_cache(TILES_KEPT)(self._get_tile)

    def latest(self, tenant: str, after: int = 0) -> bytes | None:
        """The note of the last checkpoint, not verified, None where the log has none yet.

        `after` is a size from which on it is worth looking: that of a checkpoint seen before saves requests.
        """
        size = self._last_size(tenant, after)
        if size is None and after:
            size = self._last_size(tenant, 0)
        return None if size is None else self.checkpoint(tenant, size)

    def sizes(self, tenant: str) -> Iterator[int]:
        """The sizes of all checkpoints, ascending."""
        more, after = True, 0
        while more:
            page, more = self._page(tenant, after)
            yield from page
            after = page[-1] + 1 if page else LARGEST

    def tenants(self) -> Iterator[str]:
        """The tenants whose logs have anything in the bucket."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Delimiter="/")
        with aws.faults("listing the logs in the evidence bucket"):
            for item in (item for page in pages for item in page.get("CommonPrefixes", [])):
                yield item["Prefix"].removesuffix("/")

    def checkpoint(self, tenant: str, size: int) -> bytes:
        """The note of the checkpoint of that size, not verified. Raises `EvidenceMissing` where there is none."""
        key = _checkpoint_key(tenant, size)
        signed = self._get(key)
        if Checkpoint.parse(Note.parse(signed).text).size != size:
            raise EvidenceConflict(f"{key}: expected a checkpoint of size {size}, the bucket holds {signed!a}")
        return signed

    def tile(self, tenant: str, tile: Tile) -> bytes:
        """A tile's hashes in one, exactly as wide as `tile` says. Raises `EvidenceMissing` where there is none."""
        return self._full_tile(tenant, tile) if tile.width == tiles.WIDTH else self._get_tile(tenant, tile)

    def put_checkpoint(self, tenant: str, size: int, signed: bytes) -> bytes:
        """Publish a checkpoint's note, durable on return, and return the note that lies there.

        That may be another one of the same text, with cosignatures of another moment, where a run beside us was quicker.
        Raises `EvidenceConflict` where it says something else.
        """
        key = _checkpoint_key(tenant, size)
        if self._put(key, signed, "text/plain; charset=utf-8"):
            return signed
        found = self._get(key)
        if Note.parse(found).text != Note.parse(signed).text:
            raise EvidenceConflict(f"{key}: expected the checkpoint {signed!a}, the bucket holds {found!a}")
        return found

    def put_tile(self, tenant: str, tile: Tile, content: bytes) -> None:
        """Store a tile, durable on return; it may lie there already. Raises `EvidenceConflict` where another one does."""
        key = f"{tenant}/{tile.path}"
        if not self._put(key, content, "application/octet-stream") and self._get(key) != content:
            raise EvidenceConflict(f"{key}: expected the tile of this log, the bucket holds one of another history")

    def node_reader(self, tenant: str, size: int) -> merkle.NodeReader:
        """Read the nodes of the tree of `size` leaves from its tiles, each fetched once.

        A size that had a checkpoint has exactly its tiles. For any other one, below the last checkpoint, a partial tile is
        cut out of a wider one: the full one, or where it is not full yet the narrowest that is wide enough (tlog-tiles:
        a tile's beginning never changes). Raises `EvidenceMissing` where no tile has the node.
        """
        fetch = functools.cache(lambda tile: self._cut(tenant, tile))

        def node(level: int, index: int) -> bytes:
            tile = tiles.tile_of_node(level, index, size)
            return tiles.node_in_tile(tile, fetch(tile), level, index)

        return node

    def _cut(self, tenant: str, tile: Tile) -> bytes:
        try:
            return self.tile(tenant, tile)
        except EvidenceMissing:
            if tile.width == tiles.WIDTH:
                raise
        for width in [tiles.WIDTH, *self._widths(tenant, tile)]:
            try:
                return self.tile(tenant, tile._replace(width=width))[: tile.width * merkle.HASH]
            except EvidenceMissing:
                continue
        raise EvidenceMissing(f"expected a tile at least as wide as {tenant}/{tile.path} in {self._bucket}, found none")

    def _widths(self, tenant: str, tile: Tile) -> list[int]:
        """The widths of the partial tiles in the place of `tile` that have all of it, narrowest first."""
        prefix = f"{tenant}/{tile._replace(width=tiles.WIDTH).path}.p/"
        keys, _ = self._list(prefix, prefix)
        return sorted(width for key in keys if (width := int(key.removeprefix(prefix))) >= tile.width)

    def _last_size(self, tenant: str, after: int) -> int | None:
        """The largest size from `after` on. S3 lists upwards only, so beyond the first page it is looked for by halving."""
        page, more = self._page(tenant, after)
        if not page:
            return None
        last, most = page[-1], LARGEST
        while more:  # then there is one above `last`, up to `most`
            middle = min(2 * last, (last + most + 1) // 2)
            page, beyond = self._page(tenant, middle)
            if page:
                last, more = page[-1], beyond
            else:
                most = middle - 1
        return last

    def _page(self, tenant: str, after: int) -> tuple[list[int], bool]:
        """The sizes from `after` on that come in one answer, and whether there are more."""
        prefix = f"{tenant}/checkpoint/"
        keys, more = self._list(prefix, _checkpoint_key(tenant, max(0, after - 1)))
        return [int(key.removeprefix(prefix)) for key in keys], more

    def _list(self, prefix: str, start_after: str) -> tuple[list[str], bool]:
        with aws.faults(f"listing {prefix} in the evidence bucket"):
            found = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix, StartAfter=start_after)
        return [item["Key"] for item in found.get("Contents", [])], found["IsTruncated"]

    def _get_tile(self, tenant: str, tile: Tile) -> bytes:
        key = f"{tenant}/{tile.path}"
        content = self._get(key)
        if len(content) != tile.width * merkle.HASH:
            raise EvidenceConflict(f"{key}: expected {tile.width} hashes of 32 bytes, got {len(content)} bytes")
        return content

    def _get(self, key: str) -> bytes:
        missing = EvidenceMissing(f"expected {key} in the evidence bucket {self._bucket}, found no such object")
        with aws.faults(f"reading {key} from the evidence bucket", {"NoSuchKey": missing}):
            return self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def _put(self, key: str, content: bytes, content_type: str) -> bool:
        """Store the object unless there is one; says whether it was this one that was stored."""
        try:
            with aws.faults(f"writing {key} to the evidence bucket", {"PreconditionFailed": _Taken()}):
                self._s3.put_object(
                    Bucket=self._bucket,
                    Key=key,
                    Body=content,
                    ContentType=content_type,
                    ChecksumAlgorithm="SHA256",
                    IfNoneMatch="*",
                )
        except _Taken:
            return False
        return True

    @functools.cached_property
    def _s3(self) -> S3Client:
        client: S3Client = self._given or aws.client("s3")
        return client


class _Taken(PermanentError):
    """There is an object under the key."""


def _checkpoint_key(tenant: str, size: int) -> str:
    return f"{tenant}/checkpoint/{size:020d}"
