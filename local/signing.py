"""The key that signs the local stack's logs, as a secret: LocalStack's KMS has no Ed25519."""

from __future__ import annotations

import base64
import secrets

from local.aws import Clients, publish_secret
from local.store import Store


def publish(clients: Clients, store: Store) -> dict[str, str]:
    """Put the key where the checkpoint function looks for it; returns the template's parameter.

    Made once: the logs in the database go on, and so must the name under them.
    """
    if not store.get("signing_seed"):
        store.set("signing_seed", base64.b64encode(secrets.token_bytes(32)).decode())
    return {"SigningKeys": publish_secret(clients, "prooftrail/signing", {"seed": store.get("signing_seed")})}
