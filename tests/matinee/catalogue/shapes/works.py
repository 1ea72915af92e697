"""Five made-up works, which every shape of a catalogue holds."""

# ruff: noqa: E501

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    id: int
    title: str
    year: int
    genres: tuple[str, ...]
    makers: tuple[str, ...]
    cast: tuple[str, ...]
    overview: str
    rating: float
    votes: int

    @property
    def date(self) -> str:
        return f"{self.year}-0{self.id % 9 + 1}-1{self.id % 9}"

    @property
    def moved(self) -> str:
        """The title with its article behind it."""
        return f"{self.title[4:]}, The" if self.title.startswith("The ") else self.title


WORKS = (
    Work(11, "The Lamp Makers", 1987, ("Drama", "History"), ("Ann Fell",), ("Bo Gray", "Cy Orr"), "Two makers share one street, and one lamp.", 7.5, 1204),
    Work(12, "Ferry Tale", 1999, ("Comedy",), ("Di Poe", "Ed Roe"), ("Flo Hart", "Gus Ives"), 'A skipper says "never again".', 6.25, 88),
    Work(13, "L'été, un quai", 2004, ("Romance", "Drama"), ("Émile Aubé",), ("Io Lind", "Jo Marr"), "A summer on a quay in Brest.", 8.1, 23456),
    Work(14, "Signal 14", 2010, ("Science Fiction", "Mystery"), ("Kit Nash",), ("Lou Oaks", "Mo Pell"), "A signal repeats; nobody sent it.", 5.75, 310),
    Work(15, "The Quiet Harbour", 2021, ("Drama", "War", "Family"), ("Nan Quill",), ("Oz Rook", "Pia Sand"), "The harbour fell silent in spring.", 9.5, 4021),
)  # fmt: skip
