"""Single requests to the server of a case, beside the steady ones."""

import httpx

from bench.faults.case import Stand
from bench.traffic import Line, write


def post(stand: Stand, line: Line) -> httpx.Response:
    return httpx.request(line["method"], stand.server.url + line["path"], json=line["body"], timeout=60, trust_env=False)


def put(stand: Stand, number: int) -> int:
    """The status of a write."""
    return post(stand, write(number)).status_code


def revision(stand: Stand) -> int:
    """That of a write now."""
    return int(post(stand, write(0)).raise_for_status().json()["items"][0]["revision"])


def feedback(stand: Stand) -> int:
    """The status of feedback to a search of now."""
    answer = post(stand, {"method": "POST", "path": "/v1/search", "body": {"text": "a heist inside dreams"}}).raise_for_status().json()
    body = {"token": answer["feedback_token"], "clicked": [answer["items"][0]["id"]]}
    return post(stand, {"method": "POST", "path": "/v1/feedback", "body": body}).status_code
