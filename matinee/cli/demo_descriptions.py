"""Write the bundled films' descriptions anew, with the enhancer of the current settings: `python -m matinee.cli.demo_descriptions`.

Takes some minutes on a CPU. The manifest beside them says which model wrote them, how, and when.
"""

from datetime import UTC, datetime

import orjson
import typer
from rich.console import Console
from rich.progress import Progress

from matinee.catalogue.reader import read_items
from matinee.cli.errors import explain_errors
from matinee.demo import DESCRIPTIONS, FILMS, MANIFEST
from matinee.models.enhancer import Enhancer
from matinee.settings.load import load_settings


@explain_errors(private=False)
def main() -> None:
    """Describe every bundled film."""
    settings = load_settings()
    items = list(read_items(str(FILMS)))
    enhancer = Enhancer.load(settings.enhancer, settings.models_dir, progress=Console(stderr=True).print)
    size = settings.enhancer.batch_size
    rows = []
    with Progress() as progress:
        bar = progress.add_task("descriptions", total=len(items))
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            for item, written in zip(batch, enhancer.describe(batch), strict=True):
                rows.append({"id": item.id, "description": written.text, "source": written.source, "marked": written.marked})
            progress.advance(bar, len(batch))
    writing = settings.enhancer.model_dump(mode="json", include={"max_new_tokens", "temperature", "repetition_penalty", "seed", "retries"})
    manifest = {
        **enhancer.info(),
        "settings": writing,
        "date": datetime.now(UTC).date().isoformat(),
        "descriptions": len(rows),
        "by_template": sum(row["source"] == "template" for row in rows),
        "marked": sum(bool(row["marked"]) for row in rows),
    }
    DESCRIPTIONS.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    MANIFEST.write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(main)

if __name__ == "__main__":
    app()
