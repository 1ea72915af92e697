"""The errors for versions that are not there, in the same words on each engine. `where` they are missing: `under PATH`, `on a server`."""

from matinee.errors import IndexAbsentError
from matinee.index.types import Manifest


def no_version(version: str, catalogue: str, where: str) -> IndexAbsentError:
    return IndexAbsentError(
        f"there is no finished index version {version!r} of the catalogue {catalogue!r} {where}: "
        "run `matinee ingest` to build one, `matinee index` to see what is there"
    )


def no_build(manifest: Manifest, where: str) -> IndexAbsentError:
    return IndexAbsentError(f"there is no build of version {manifest.version} {where}")


def no_previous(catalogue: str) -> IndexAbsentError:
    return IndexAbsentError(f"the catalogue {catalogue!r} has no previous index version to go back to")
