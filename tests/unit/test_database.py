"""Reaching PostgreSQL: the three ways to log in, and patience that ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.auth
import moto
import pytest
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from psycopg.conninfo import conninfo_to_dict

from prooftrail import aws, database
from prooftrail.database import Database
from prooftrail.errors import ConfigurationError, DatabaseUnavailable
from prooftrail.settings import DatabaseSettings

URL = "postgresql://prooftrail_ingest@db.example:6432/prooftrail?sslmode=verify-full"
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


@pytest.fixture
def secret() -> Iterator[Any]:
    """Puts a value into Secrets Manager and returns its ARN."""
    with moto.mock_aws():
        database._secrets.cache_clear()
        client = boto3.client("secretsmanager")
        yield lambda value: client.create_secret(Name="s", SecretString=value)["ARN"]
        database._secrets.cache_clear()


class TestUrl:
    def test_a_complete_url_is_taken_as_it_is(self) -> None:
        login = database.login(DatabaseSettings(database_url="postgresql://u:p@h:1/d?sslmode=require"))
        assert login == {"user": "u", "password": "p", "host": "h", "port": "1", "dbname": "d", "sslmode": "require"}

    @pytest.mark.parametrize("url", ["postgresql://u@h:1/d?no_such_option=1", "not a url", "postgresql://[::1"])
    def test_a_url_that_is_none_says_what_is_expected(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="DATABASE_URL: expected postgresql://USER@HOST:PORT/NAME"):
            database.login(DatabaseSettings(database_url=url))

    @pytest.mark.parametrize("url", ["postgresql:///d", "postgresql://h/d", "postgresql://u@/d"])
    def test_a_token_needs_a_user_and_a_host(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="DATABASE_URL: expected postgresql://USER@HOST:PORT/NAME"):
            database.login(DatabaseSettings(database_url=url, database_auth="iam"))


class TestSecret:
    def settings(self, arn: str) -> DatabaseSettings:
        return DatabaseSettings(database_url=URL, database_auth="secret", database_secret_arn=arn)

    def test_a_map_gives_each_role_its_password(self, secret: Any) -> None:
        arn = secret(json.dumps({"prooftrail_ingest": "one", "prooftrail_query": "two"}))
        login = database.login(self.settings(arn))
        assert (login["user"], login["password"], login["port"]) == ("prooftrail_ingest", "one", "6432")

    def test_the_form_that_rds_manages_names_the_user_too(self, secret: Any) -> None:
        arn = secret(json.dumps({"username": "master", "password": "p@ss/word", "port": 5432, "dbname": None}))
        login = database.login(self.settings(arn))
        assert (login["user"], login["password"]) == ("master", "p@ss/word")

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ('{"prooftrail_query": "hush-hush"}', "expected a password for 'prooftrail_ingest', got keys"),
            ('{"username": "master"}', "expected a password for 'prooftrail_ingest', got keys"),
            ("plain-password", "expected a JSON object of log-in data"),
            ('["list"]', "expected a JSON object of log-in data"),
        ],
    )
    def test_a_secret_of_another_form_says_what_it_lacks_and_shows_no_password(
        self, secret: Any, value: str, words: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=words) as caught:
            database.login(self.settings(secret(value)))
        assert "hush-hush" not in str(caught.value)
        assert "plain-password" not in str(caught.value)

    def test_that_cannot_be_read_now_is_an_outage_that_passes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        database._secrets.cache_clear()
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="reading the secret arn: Could not connect"):
            database.connect(self.settings("arn"), patience=0)
        assert time.monotonic() - began < aws.CONNECT_TIMEOUT * aws.TRIES + 4
        database._secrets.cache_clear()

    def test_that_can_be_read_again_in_time_is_waited_for(self, server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        known = conninfo_to_dict(server_url)
        secret = json.dumps({"username": known["user"], "password": known.get("password", "")})
        tries = iter([None, secret])

        def get(*_arguments: Any, **_options: Any) -> str:
            if (text := next(tries)) is None:
                raise GetParameterError("away")
            return text

        monkeypatch.setattr(database, "_secrets", lambda: SimpleNamespace(get=get))
        settings = DatabaseSettings(database_url=server_url, database_auth="secret", database_secret_arn="arn")
        with database.connect(settings, patience=5) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


class TestIam:
    def test_the_token_is_the_one_that_boto3_makes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: datetime(2026, 10, 1, 12, tzinfo=UTC)
        )
        monkeypatch.setenv("AWS_SESSION_TOKEN", "session/token+==")
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        theirs = (
            boto3.Session().client("rds", region_name="eu-central-1").generate_db_auth_token("db.example", 6432, "a user+1")
        )
        assert database.iam_token("db.example", "6432", "a user+1") == theirs
        assert "X-Amz-Date=20261001T120000Z" in theirs

    def test_it_becomes_the_password(self) -> None:
        login = database.login(DatabaseSettings(database_url=URL, database_auth="iam"))
        assert login["password"].startswith("db.example:6432/?Action=connect&DBUser=prooftrail_ingest&")

    def test_without_credentials_it_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
        with pytest.raises(ConfigurationError, match="expected AWS credentials in the environment"):
            database.iam_token("h", "1", "u")


class TestPatience:
    @pytest.mark.parametrize("patience", [0.0, 0.4])
    def test_it_ends_when_it_was_said_to(self, patience: float) -> None:
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="no connection to PostgreSQL within"):
            database.connect(DatabaseSettings(database_url=NOWHERE), patience)
        assert time.monotonic() - began < patience + 0.5

    def test_a_server_that_comes_back_in_time_is_reached(self, server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        urls = iter([NOWHERE, NOWHERE, server_url])
        login = database.login
        monkeypatch.setattr(database, "login", lambda settings: login(DatabaseSettings(database_url=next(urls))))
        with database.connect(DatabaseSettings(database_url=NOWHERE), patience=5) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


class TestWarmConnection:
    def test_it_is_kept_until_it_breaks_or_is_discarded(self, server_url: str) -> None:
        warm = Database(DatabaseSettings(database_url=server_url))
        first = warm.connection(1)
        assert warm.connection(1) is first
        first.close()
        second = warm.connection(1)
        assert second is not first
        warm.discard()
        assert second.closed
        third = warm.connection(1)
        assert third.autocommit
        assert third.prepare_threshold is None
        warm.discard()
        warm.discard()
