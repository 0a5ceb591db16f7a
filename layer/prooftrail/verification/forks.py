"""Forks: where a log is not what was signed, which entries differ from the leaf hashes that were published as tiles."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from prooftrail.database import Connection
from prooftrail.errors import ProoftrailError
from prooftrail.evidence import Evidence
from prooftrail.ledger import merkle, tiles
from prooftrail.ledger.merkle import HASH
from prooftrail.ledger.tiles import WIDTH, Tile

MOST_DIFFERENT = 100  # entries that are named


class Different(NamedTuple):
    """An entry whose leaf hash is another than the published one."""

    entry: int
    batch: int
    position: int
    published: bytes


def different(connection: Connection, evidence: Evidence, tenant: str, size: int) -> list[Different]:
    """The first entries below `size` that differ from the tiles; none where the tiles cannot be read.

    The tiles are believed here because no more than names comes of it: that something differs is known already.
    """
    try:
        return list(itertools.islice(_compare(connection, evidence, tenant, size), MOST_DIFFERENT))
    except ProoftrailError:
        return []


def _compare(connection: Connection, evidence: Evidence, tenant: str, size: int) -> Iterator[Different]:
    node = evidence.node_reader(tenant, size)
    places = _places(connection, tenant, size)
    for number in itertools.count():
        ours = list(itertools.islice(places, WIDTH))
        if not ours:
            return
        if len(ours) == WIDTH and node(tiles.HEIGHT, number) == merkle.root_of(leaf for *_, leaf in ours):
            continue
        width = min(WIDTH, size - number * WIDTH)
        content = evidence.tile(tenant, Tile(0, number, width)) if width > 0 else b""
        for (index, batch, position, leaf), start in zip(ours, range(0, len(content), HASH), strict=False):
            published = content[start : start + HASH]
            if published != leaf:
                yield Different(index, batch, position, published)


def _places(connection: Connection, tenant: str, size: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Index, batch, position and leaf hash of the log's entries, as PostgreSQL has them."""
    with connection.cursor("fork", binary=True) as cursor:
        cursor.itersize = 50
        cursor.execute(
            """
            SELECT id, first_index, leaf_hashes FROM prooftrail.batch
            WHERE tenant = %s AND first_index < %s ORDER BY first_index, id
            """,
            [tenant, size],
        )
        for batch, first_index, hashes in cursor:
            for position in range(min(len(hashes) // HASH, size - first_index)):
                yield first_index + position, batch, position, hashes[position * HASH : (position + 1) * HASH]
