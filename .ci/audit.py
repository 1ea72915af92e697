"""Ask a public database for known weaknesses of the locked packages.

Ends with 1 if there is one, or if the audit fails. Where the network has no such database, it says so and ends with 0: an index that is a
mirror answers 404 for every package, and pip-audit alone would call that "no known vulnerabilities".
"""

import json
import re
import subprocess
import sys

IGNORED: dict[str, str] = {}
"""Identifiers of weaknesses that we don't have, each with the reason."""

COMMAND = [".ci/uv", "tool", "run", "pip-audit@2.10.1", "--requirement", "requirements.lock", "--require-hashes", "--disable-pip"]
OPTIONS = ["--progress-spinner", "off", "--format", "json", *(word for name in IGNORED for word in ("--ignore-vuln", name))]

TIMEOUT_S = 600
"""What a network that answers nothing may take."""

# Of uv (also for an index without pip-audit), of requests and of pip-audit.
_NO_NETWORK = re.compile(
    r"error sending request|Failed to fetch|No solution found|requests\.exceptions\.\w*(Connection|Proxy|Timeout|SSL)|Could not connect"
)


def verdict(status: int, out: str, err: str) -> tuple[int, str]:
    """The exit code and what to say, for what pip-audit ended with and printed."""
    try:
        packages = json.loads(out)["dependencies"]
    except (ValueError, KeyError):
        if status and _NO_NETWORK.search(err):
            return 0, "not audited: no network"
        return 1, f"the audit failed with {status}: {err.strip()[-2000:]}"
    audited = [package for package in packages if "skip_reason" not in package]
    weak = [(package, weakness) for package in audited for weakness in package["vulns"]]
    if weak:
        lines = [f"{p['name']} {p['version']}: {w['id']}, fixed in {', '.join(w['fix_versions']) or 'no version'}" for p, w in weak]
        return 1, "\n".join([*lines, "update them (make lock), or name the identifier and the reason in .ci/audit.py"])
    if status:
        return 1, f"the audit failed with {status}: {err.strip()[-2000:]}"
    if not audited:
        return 0, f"not audited: this network's package index knows no weaknesses ({len(packages)} packages)"
    return 0, f"no known weakness in {len(audited)} of {len(packages)} locked packages"


if __name__ == "__main__":
    try:
        done = subprocess.run([*COMMAND, *OPTIONS], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        code, text = verdict(done.returncode, done.stdout, done.stderr)
    except subprocess.TimeoutExpired:
        code, text = 0, f"not audited: no answer within {TIMEOUT_S} s"
    print(text)
    sys.exit(code)
