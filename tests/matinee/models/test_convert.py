"""What loads a model is quiet, and what only imports us changes nobody's logs."""

import logging
import subprocess
import sys

from matinee.models import convert

LOGGERS = ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions")


def test_the_warnings_of_bitsandbytes_end_where_a_model_is_loaded_and_not_at_an_import() -> None:
    script = f"import logging, matinee.models.convert; print([logging.getLogger(name).level for name in {LOGGERS}])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([logging.NOTSET] * len(LOGGERS))
    with convert.quiet():
        pass
    assert [logging.getLogger(name).level for name in LOGGERS] == [logging.ERROR] * len(LOGGERS)
