"""The environment of the programs that tests start."""

import os

# Ray starts its workers at 15: on a busy machine they would hardly run beside the processes of the tests.
AS_URGENT = {"RAY_worker_niceness": "0"}


def clean() -> dict[str, str]:
    """This process's, without any setting of Matinee or Ray but the one above."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MATINEE_", "RAY_"))} | AS_URGENT
