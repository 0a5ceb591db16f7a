"""Run LocalStack with our plugins: `python -m prooftrail_emulator`."""

from prooftrail_emulator import older_python

older_python.support()

# Importable only now.
from localstack.runtime.main import main  # noqa: E402

main()
