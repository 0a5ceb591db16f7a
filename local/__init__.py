"""The whole system on this machine: LocalStack, PostgreSQL and the deployed template, without Docker."""
