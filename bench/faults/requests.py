"""Single requests to the server of a case, beside the steady ones."""

import httpx

from bench.faults.case import Sandbox
from bench.traffic import TrafficLine, write


def post(sandbox: Sandbox, line: TrafficLine) -> httpx.Response:
    return httpx.request(line["method"], sandbox.server.url + line["path"], json=line["body"], timeout=60, trust_env=False)


def put(sandbox: Sandbox, number: int) -> int:
    """The status of a write."""
    return post(sandbox, write(number)).status_code


def revision(sandbox: Sandbox) -> int:
    """That of a write now."""
    return int(post(sandbox, write(0)).raise_for_status().json()["items"][0]["revision"])


def feedback(sandbox: Sandbox) -> int:
    """The status of feedback to a search of now."""
    answer = post(sandbox, {"method": "POST", "path": "/v1/search", "body": {"text": "a heist inside dreams"}}).raise_for_status().json()
    body = {"token": answer["feedback_token"], "clicked": [answer["items"][0]["id"]]}
    return post(sandbox, {"method": "POST", "path": "/v1/feedback", "body": body}).status_code
