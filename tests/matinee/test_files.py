"""Paths as users write them, where `~` has a meaning and where it is a letter of a name; and files that are replaced in one step."""

from pathlib import Path

import pytest

from matinee.catalogue.reader import read_items
from matinee.files import user_path, write_atomically


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory beside a home folder."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.mark.parametrize("name", ["~films.csv", "~/films.csv", "my ~films (1) é.csv"])
def test_a_catalogue_with_a_tilde_in_its_path(here: Path, name: str) -> None:
    path = here.parent / "home" / "films.csv" if name.startswith("~/") else here / name
    path.write_text("title\nHeat\n")
    assert user_path(name).samefile(path)
    assert [item.title for item in read_items(name)] == ["Heat"]


def test_a_home_that_nobody_knows_stays_as_it_is_written(here: Path) -> None:
    assert user_path("~nobody-of-that-name/films.csv") == Path("~nobody-of-that-name/films.csv")
    assert user_path("~/work") == here.parent / "home" / "work"
    (here / "~").mkdir()
    assert user_path("~") == Path("~")


def test_an_error_leaves_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, "one", mode=0o600, fsync=True)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("one", 0o600)
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\udcff")
    assert path.read_text() == "one"
