"""The items that may be trained on, and their texts. The one place that decides it: an item of the dev or test split never is."""

from collections.abc import Sequence

from matinee.errors import SourceError
from matinee.evaluation.splits import Entry
from matinee.text import templates


class TrainingItems:
    """Everything that makes pairs or negatives gets its items from here. `language`: of their words, as `embedder.language`."""

    def __init__(
        self,
        entries: Sequence[Entry],
        template: templates.Template = templates.DENSE_TEMPLATE,
        language: str | None = "english",
    ) -> None:
        self.template, self.language = template, language
        self.entries = [entry for entry in entries if entry.split == "train"]
        if not self.entries:
            raise SourceError("no item of the split train: nothing to train on")
        self.texts = [templates.raw_text(entry.item, template) for entry in self.entries]
        self.rows = {entry.id: row for row, entry in enumerate(self.entries)}

    def text(self, id: str) -> str:
        return self.texts[self.rows[id]]
