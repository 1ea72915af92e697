"""Where settings come from, strongest first: a command line's flags, `MATINEE_` environment variables, a Serve application's arguments,
the YAML file that `MATINEE_CONFIG` names, and the profile (`MATINEE_PROFILE`, one of `matinee/settings/profiles/*.yaml`).

A variable names its setting (`MATINEE_INDEX__ENGINE=qdrant`); an empty one counts as unset, an unknown one is refused. Nothing else in
the project reads the environment. Does not know what the settings mean: `settings` does.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource
from pydantic_settings import SettingsError as MalformedError

from matinee.errors import SettingsError, kind_of
from matinee.files import make_private, user_path
from matinee.patterns import message_of
from matinee.settings.base import HIDDEN
from matinee.settings.tree import PREFIX, Settings

PROFILES = Path(__file__).parent / "profiles"

# Read by the CLI and the tests, not settings.
_OTHERS = re.compile(r"MATINEE_(URL|KEY|DATABASE|DATA|TEST_\w+)")
# What Kubernetes puts into every pod beside a service whose name begins with "matinee".
_LINKS = re.compile(r"(?=\w++\Z)MATINEE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
# A password may hold slashes and more of the same sign. Of a word's `://` only the first is tried, or time would be quadratic.
_URL_USER = re.compile(r"(?<!\S)((?>\S*?://))\S*@")


class _Environment(EnvSettingsSource):
    """Settings out of a given environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._variables = {name.lower(): None if value == "null" else value for name, value in environ.items()}
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._variables


def load_settings(
    args: Mapping[str, Any] | None = None, *, flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """The settings of this process.

    `flags` is a nested mapping of what a command line says, stronger than everything. `args` is one that is weaker than the environment
    and stronger than the files.

    Where it reads this process's environment, it also makes the home folder, for this user alone. Raises `SettingsError` with the setting's
    name, its value and what is wrong with it.
    """
    env = _from_environment(os.environ if environ is None else environ)
    overrides = merge(merge(args or {}, env), flags or {})
    config = overrides.get("config")
    file = _read_yaml(user_path(str(config))) if config else {}
    profile = str(overrides.get("profile") or file.get("profile") or "embedded")
    values = merge(merge(_read_yaml(_profile_path(profile)), file), overrides)
    try:
        settings = Settings(**values | {"profile": profile, "config": config})
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    if environ is None:
        # The home holds keys, events and users' texts. A configured home may be shared on purpose, so its mode stays.
        make_private(settings.home_dir, even_if_there="home" not in values)
    return settings


def without_secrets(settings: Settings) -> Settings:
    """`settings` without the keys to other services. Serve keeps them in its checkpoints, which others may read."""
    for place in SECRETS:
        settings = _replace(settings, place, None)
    return settings


def with_key(settings: Settings, part: Literal["index", "enhancer"], environ: Mapping[str, str] | None = None) -> Settings:
    """`settings` with the key of one part's server, out of this process's environment or the settings file on this machine."""
    file = _read_yaml(settings.config.expanduser()) if settings.config else {}
    values = merge(file, _from_environment(os.environ if environ is None else environ))
    key = (values.get(part) or {}).get("api_key")
    return _replace(settings, (part, "api_key"), None if key is None else SecretStr(str(key)))


def refuse_secrets(args: Mapping[str, Any]) -> None:
    """Raise `SettingsError` where a Serve application's arguments hold a secret."""
    for place in SECRETS:
        value: Any = args
        for name in place:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value:
            raise SettingsError(
                f"{'.'.join(place)}: Ray Serve keeps the arguments of an application in clear text; "
                f"set {variable(place)} in the environment of the nodes that need it instead"
            )


def variable(place: Sequence[str]) -> str:
    """The environment variable of a setting: ("index", "api_key") -> MATINEE_INDEX__API_KEY."""
    return PREFIX + "__".join(place).upper()


def _secrets(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """The places of the secrets in a tree of settings. They can all be None."""
    for name, field in model.model_fields.items():
        if SecretStr in (field.annotation, *get_args(field.annotation)):
            yield (name,)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ((name, *place) for place in _secrets(field.annotation))


SECRETS = tuple(_secrets(Settings))
"""The places of all secrets: ("index", "api_key") and so on."""
# Fields whose values no error shows.
_UNSHOWN = {place[-1] for place in SECRETS} | {"sha256"}

_Tree = TypeVar("_Tree", bound=BaseModel)


def _replace(tree: _Tree, place: Sequence[str], value: object) -> _Tree:
    name, *rest = place
    return tree.model_copy(update={name: _replace(getattr(tree, name), rest, value) if rest else value})


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    ours = {name.upper(): value for name, value in environ.items() if name.upper().startswith(PREFIX)}
    known = set(_names(Settings))
    for name, value in ours.items():
        link = _LINKS.fullmatch(name) and "__" not in name and (name != "MATINEE_PORT" or "://" in value)
        if name not in known and not link and not _OTHERS.fullmatch(name):
            near = difflib.get_close_matches(name, known, 1)
            hint = f": did you mean {near[0]}?" if near else ": check its spelling against docs/settings.md"
            raise SettingsError(f"settings: unknown environment variable {name}{hint}")
    try:
        return _Environment({name: value for name, value in ours.items() if name in known and value})()
    except MalformedError as error:
        raise SettingsError(f"settings: {error}: several values in one variable are written as JSON") from None


def _names(model: type[BaseModel], prefix: str = PREFIX) -> Iterator[str]:
    """The environment variables of a settings tree."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _names(field.annotation, f"{prefix}{name.upper()}__")


def _profile_path(profile: str) -> Path:
    known = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if profile not in known:
        raise SettingsError(f"profile {profile!r} is unknown: use one of {', '.join(known)}")
    return PROFILES / f"{profile}.yaml"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds {kind_of(values)}, not a mapping of settings: write it as `section: {{name: value}}`")
    return values


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Sections key by key, all else replaced: as Helm merges values files."""
    both = dict(base)
    for key, value in over.items():
        known = both.get(key)
        both[key] = merge(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return both


def _is_secret(problem: ErrorDetails) -> bool:
    return problem["type"] == HIDDEN or problem["loc"][-1] in _UNSHOWN


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        message = message_of(problem)
        if problem["type"] == "value_error":
            message = _URL_USER.sub(r"\1...@", message)
        if problem["type"] == "extra_forbidden":
            message = "unknown setting: check its spelling against docs/settings.md"
        elif not isinstance(problem["input"], Mapping | list | tuple | BaseModel) and not _is_secret(problem):
            message += " (it is {})".format(_URL_USER.sub(r"\1...@", repr(problem["input"])))
        lines.append(f"{name}: {message}" if name else message)
    return "settings: " + "; ".join(lines)
