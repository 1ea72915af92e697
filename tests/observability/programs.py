"""The programs that tests of this folder need. Without one its tests are skipped; where `CI` is set they run, and fail for want of it."""

import os
import shutil

import pytest


def needs(program: str) -> pytest.MarkDecorator:
    """The mark of tests that call `program`."""
    missing = shutil.which(program) is None and not os.environ.get("CI")
    return pytest.mark.skipif(missing, reason=f"{program} is not installed (Debian: prometheus)")
