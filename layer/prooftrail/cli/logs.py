"""`prooftrail log`: the names and keys by which others know our logs."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Annotated

import typer

from prooftrail import signing
from prooftrail.cli.common import checked_tenant, commands, fail
from prooftrail.errors import ProoftrailError
from prooftrail.ledger.note import COSIGNATURE, VerifierKey

app = commands("Show and make the keys that sign logs.")

SigningKeys = Annotated[
    str, typer.Option(envvar="SIGNING_KEYS", help="ARNs of the keys in KMS or Secrets Manager, comma-separated.")
]


@app.command("keys")
def keys(
    tenant: Annotated[str, typer.Option(help="Whose log.")],
    origin: Annotated[str, typer.Option(envvar="LOG_ORIGIN", help="The first part of the logs' names.")],
    signing_keys: SigningKeys,
) -> None:
    """Print the verifier keys of a tenant's log, one a line: give them to whoever shall check it, by a way they trust."""
    name = f"{origin}/{checked_tenant(tenant)}"
    for key in _verifier_keys(name, signing_keys):
        typer.echo(str(key))


@app.command("witness-key")
def witness_key(
    name: Annotated[str, typer.Option(envvar="WITNESS_NAME", help="The name under which the witness cosigns.")],
    signing_keys: SigningKeys,
) -> None:
    """Print the verifier key of a witness, as a log needs it in WITNESSES."""
    for key in _verifier_keys(name, signing_keys):
        typer.echo(str(VerifierKey(name, COSIGNATURE, key.public_key)))


@app.command("generate-key")
def generate_key() -> None:
    """Print a new key as JSON, for a secret in Secrets Manager where KMS has no Ed25519. Whoever sees it can sign."""
    typer.echo(json.dumps({"seed": base64.b64encode(secrets.token_bytes(32)).decode()}))


def _verifier_keys(name: str, arns: str) -> list[VerifierKey]:
    try:
        return signing.verifier_keys(name, signing.keys(arns))
    except ProoftrailError as error:
        fail(str(error))
