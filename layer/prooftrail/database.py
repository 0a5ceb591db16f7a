"""How a function reaches PostgreSQL: one warm connection, patience while the server is away, three ways to log in.

Made for RDS Proxy too: no server-side prepared statements, no session settings, so that no connection is pinned.
"""

from __future__ import annotations

import functools
import os
import time
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from prooftrail import aws
from prooftrail.aws import AwsUnavailable
from prooftrail.errors import ConfigurationError, DatabaseUnavailable
from prooftrail.settings import DatabaseSettings

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
CONNECT_TIMEOUT = 5  # seconds for one try
# Packets that nobody answers must not hold a function beyond its time: give the connection up after some seconds.
DEAD_PEER = {"tcp_user_timeout": 5000, "keepalives_idle": 10, "keepalives_interval": 3, "keepalives_count": 3}
LONGEST_PAUSE = 2.0  # seconds between two tries


class Database:
    """The connection of one execution environment, made on first use and again after it broke."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._connection: Connection | None = None

    def connection(self, patience: float) -> Connection:
        """Return a connection, waiting up to `patience` seconds for the server (Aurora resumes in 15 to 30 s).

        Raises `DatabaseUnavailable` when the time is up.
        """
        if self._connection is not None and not _alive(self._connection):
            self.discard()
        if self._connection is None:
            self._connection = connect(self._settings, patience)
        return self._connection

    def discard(self) -> None:
        """Forget the connection: it broke, or what it is in the middle of is unknown."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _alive(connection: Connection) -> bool:
    """Ask the server: a connection that was idle, or frozen with its function, may be dead without knowing it."""
    try:
        connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def connect(settings: DatabaseSettings, patience: float) -> Connection:
    """Connect in autocommit mode; transactions are opened on purpose.

    Raises `DatabaseUnavailable` if no try succeeded within `patience` seconds (at least one is made).
    """
    deadline = time.monotonic() + patience
    pause = 0.1
    while True:
        try:
            return psycopg.connect(
                **DEAD_PEER | login(settings), autocommit=True, prepare_threshold=None, connect_timeout=CONNECT_TIMEOUT
            )
        except (psycopg.OperationalError, AwsUnavailable) as error:
            if time.monotonic() + pause > deadline:
                raise DatabaseUnavailable(f"no connection to PostgreSQL within {patience:.0f} s: {error}") from error
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def login(settings: DatabaseSettings) -> dict[str, Any]:
    """Return libpq's parameters, with the password that `settings.database_auth` asks for.

    Raises `ConfigurationError` where the URL or the secret lacks what is needed, `AwsUnavailable` where the secret cannot
    be read now.
    """
    try:
        parameters: dict[str, Any] = conninfo_to_dict(settings.database_url)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(
            f"DATABASE_URL: expected postgresql://USER@HOST:PORT/NAME, got an error: {error}"
        ) from None
    if settings.database_auth == "secret":
        parameters.update(_from_secret(settings.database_secret_arn, parameters.get("user")))
    elif settings.database_auth == "iam":
        if not {"host", "user"} <= parameters.keys():
            raise ConfigurationError("DATABASE_URL: expected postgresql://USER@HOST:PORT/NAME, got no USER or no HOST")
        parameters["password"] = iam_token(parameters["host"], str(parameters.get("port", 5432)), parameters["user"])
    return parameters


def _from_secret(arn: str, user: str | None) -> dict[str, str]:
    """Log-in from Secrets Manager: RDS's own form names the user too, ours maps each role to its password."""
    try:
        secret = msgspec.json.decode(_secret_text(arn), type=dict[str, str | int | None])
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"secret {arn}: expected a JSON object of log-in data: {error}") from None
    if {"username", "password"} <= secret.keys():
        return {"user": str(secret["username"]), "password": str(secret["password"])}
    if user not in secret:
        raise ConfigurationError(f"secret {arn}: expected a password for {user!r}, got keys {sorted(secret)}")
    return {"password": str(secret[user])}


def _secret_text(arn: str) -> str:
    """The secret as it was five minutes ago at most. Raises `AwsUnavailable`."""
    from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

    try:
        text: str = _secrets().get(arn, max_age=300)
    except GetParameterError as error:
        raise AwsUnavailable(f"reading the secret {arn}: {error}") from error
    return text


@functools.cache
def _secrets() -> Any:
    """What reads secrets, and keeps them for a while; it gives up as soon as our other clients do."""
    from aws_lambda_powertools.utilities.parameters import SecretsProvider  # loads boto3: only where a secret is asked for

    return SecretsProvider(boto3_client=aws.client("secretsmanager"))


def iam_token(host: str, port: str, user: str) -> str:
    """Sign a 15-minute RDS log-in token (Amazon RDS User Guide, "IAM database authentication").

    By botocore's signer, without the RDS client, which costs a cold start 400 ms more.
    """
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.session import get_session

    credentials = get_session().get_credentials()
    if credentials is None:
        raise ConfigurationError("DATABASE_AUTH=iam: expected AWS credentials in the environment, found none")
    request = AWSRequest("GET", f"https://{host}:{port}/?Action=connect&DBUser={quote(user, safe='')}")
    SigV4QueryAuth(credentials.get_frozen_credentials(), "rds-db", os.environ["AWS_REGION"], expires=900).add_auth(request)
    return str(request.url).removeprefix("https://")
