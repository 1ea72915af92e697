"""The environment of the programs that tests start."""

import os


def clean() -> dict[str, str]:
    """This process's, without any setting of Matinee or Ray."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MATINEE_", "RAY_"))}
