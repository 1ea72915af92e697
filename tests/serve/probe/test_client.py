"""Why a request of the probe failed, as metrics count it."""

from matinee.client.http import ServerError
from serve.probe.client import reason


def test_unknown_codes_of_a_server_become_one_label() -> None:
    assert reason(ServerError("", "a-code-from-elsewhere")) == "other"
