"""Publishes checkpoints of the logs in a database: all tiles, and the note signed by keys that tests know."""

from __future__ import annotations

from prooftrail.database import Connection
from prooftrail.evidence import Evidence
from prooftrail.ledger import tiles
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.merkle import root_of
from prooftrail.ledger.note import COSIGNATURE, VerifierKey
from tests.trees import Signer, Tree, signed_note

ORIGIN = "log.example"


class Publishing:
    """What the checkpoint function does, as simply as can be."""

    def __init__(self, admin: Connection, evidence: Evidence) -> None:
        self._admin = admin
        self.evidence = evidence
        self.witness = Signer("witness.example", COSIGNATURE, seed=2)

    def signer(self, tenant: str) -> Signer:
        """Who signs the tenant's log."""
        return Signer(f"{ORIGIN}/{tenant}")

    def keys(self, tenant: str) -> list[VerifierKey]:
        """What a verifier of the tenant's log must know: its key, and the witness's."""
        return [self.signer(tenant).key, self.witness.key]

    def __call__(self, tenant: str) -> Checkpoint:
        """Publish a checkpoint of the tenant's log as it is now."""
        leaves = self.leaves(tenant)
        tree, old = Tree(leaves), self._published(tenant)
        for tile in tiles.tiles_between(old, len(leaves)):
            self.evidence.put_tile(tenant, tile, tree.tile(tile))
        checkpoint = Checkpoint(f"{ORIGIN}/{tenant}", len(leaves), root_of(leaves))
        note = signed_note(checkpoint.encode(), self.signer(tenant), self.witness)
        self.evidence.put_checkpoint(tenant, len(leaves), note)
        self._admin.execute(
            "INSERT INTO prooftrail.checkpoint (tenant, size, root, note) VALUES (%s, %s, %s, %s)",
            [tenant, checkpoint.size, checkpoint.root, note.decode()],
        )
        return checkpoint

    def leaves(self, tenant: str) -> list[bytes]:
        """The leaf hashes of the tenant's log, in their order."""
        query = "SELECT leaf_hashes FROM prooftrail.batch WHERE tenant = %s ORDER BY first_index"
        content = b"".join(hashes for (hashes,) in self._admin.execute(query, [tenant]))
        return [content[start : start + 32] for start in range(0, len(content), 32)]

    def _published(self, tenant: str) -> int:
        row = self._admin.execute(
            "SELECT coalesce(max(size), 0) FROM prooftrail.checkpoint WHERE tenant = %s", [tenant]
        ).fetchone()
        assert row is not None
        return int(row[0])
