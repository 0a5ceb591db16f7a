"""Run LocalStack with our plugins: `python -m prooftrail_emulator`."""

from prooftrail_emulator import listening, older_python

older_python.support()

# Importable only now.
from localstack.runtime.main import main  # noqa: E402

listening.install()
main()
