"""What a GPU makes of Matinee's models: encoding, writing, and QLoRA of a 1B Gemma. Needs no hub: random weights of the real shapes.

    python -m bench.gpu --json gpu.json             # on a GPU, at most 8 minutes
    python -m bench.gpu --shapes tiny               # the same code with two layers; runs on a CPU

Random weights cost as much as trained ones. A word is a token here. Each row is the product's own code beside a plain loop over the same
model, in turns; rows that no time is left for are named. Ends with 1 if a row failed.
"""

import argparse
import contextlib
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from bench.tables import print_aligned
from matinee.cli.errors import run_main
from matinee.items import Item
from matinee.models.backends import GenerationOptions, TransformersBackend
from matinee.models.convert import quiet
from matinee.models.embedder import Embedder, load_model
from matinee.settings.models import EmbedderSettings
from train.generation import sft
from train.generation.config import SftConfig
from train.generation.instruction_pairs import InstructionPair

WORDS = 2000
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
ROUNDS = 3
WARM_STEPS = 2


@dataclass(frozen=True)
class Shapes:
    """Sizes of the models, and how much each of them gets to do."""

    gemma: dict[str, int]
    encoder: dict[str, int]
    texts: int
    words: tuple[int, int]
    """Of the shortest and the longest text; most are short."""
    batches: tuple[int, ...]
    new_tokens: int
    training: tuple[tuple[int, int], ...]
    """(pairs at a time, tokens of a pair at most) of each row of QLoRA."""
    steps: int


REAL = Shapes(
    # Gemma 3 1B and granite-embedding-small-english-r2, by their own config.json.
    gemma={
        "vocab_size": 262_144,
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "sliding_window": 512,
    },
    encoder={
        "vocab_size": 50_368,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 8192,
    },
    texts=8192,
    words=(8, 400),
    batches=(1, 8, 32, 128),
    new_tokens=64,
    training=((2, 256), (8, 256), (8, 1024)),
    steps=8,
)
TINY = Shapes(
    gemma={
        "vocab_size": WORDS + 16,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "sliding_window": 16,
    },
    encoder={
        "vocab_size": WORDS + 16,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
    },
    texts=64,
    words=(4, 60),
    batches=(1, 4),
    new_tokens=4,
    training=((2, 64),),
    steps=3,
)


@dataclass
class Measurement:
    """One measurement: tokens a second (or seconds a step), and the most memory of the GPU in GB."""

    what: str
    how: str
    value: float
    unit: str
    peak_gb: float = 0.0
    beside: str = ""
    """How it compares with the plain loop."""


class Bench:
    """The rows, until the time is over."""

    def __init__(self, seconds: float) -> None:
        self.rows: list[Measurement] = []
        self.left_out: list[str] = []
        self.failed: dict[str, str] = {}
        self._end = time.monotonic() + seconds

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What fails in it is a row that failed, and the next part goes on."""
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            yield
        except (RuntimeError, ValueError, OSError, ImportError) as error:
            self.failed[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def has_time(self, name: str) -> bool:
        if time.monotonic() < self._end:
            return True
        self.left_out.append(name)
        return False


def texts_of(count: int, words: tuple[int, int], seed: int = 0) -> list[str]:
    """Texts whose lengths spread as those of real overviews do: most are short, a few reach the limit."""
    random = np.random.default_rng(seed)
    lengths = np.clip(random.lognormal(np.log(words[0] * 4), 0.8, count), *words).astype(int)
    return [" ".join(f"w{n}" for n in random.integers(WORDS, size=length)) for length in lengths]


def tokenizer_in(folder: Path, length: int) -> None:
    words = {word: n for n, word in enumerate([*SPECIAL, *(f"w{n}" for n in range(WORDS))])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=length,
        model_input_names=["input_ids", "attention_mask"],
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
    )
    made.save_pretrained(folder)


def save_encoder(folder: Path, shapes: Shapes) -> Path:
    """A ModernBERT with CLS pooling, as Granite r2 is."""
    length = min(512, shapes.encoder["max_position_embeddings"])
    parts = folder / "parts"
    tokenizer_in(parts, length)
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1, "cls_token_id": 2, "sep_token_id": 1}
    with quiet():
        ModernBertModel(ModernBertConfig(**shapes.encoder, **ids)).eval().save_pretrained(parts)
        modules: list[Any] = [Transformer(str(parts), max_seq_length=length), Pooling(shapes.encoder["hidden_size"], pooling_mode="cls")]
        SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "encoder"))
    return folder / "encoder"


def save_gemma(folder: Path, shapes: Shapes) -> Path:
    torch.manual_seed(0)
    target = folder / "gemma"
    with quiet():
        Gemma3ForCausalLM(Gemma3TextConfig(**shapes.gemma)).bfloat16().save_pretrained(target)
    tokenizer_in(target, 8192)
    return target


def rate(run: Callable[[], int]) -> float:
    """Tokens a second of one run."""
    start = time.perf_counter()
    tokens = run()
    return tokens / (time.perf_counter() - start)


def peak_gb() -> float:
    """Since the last call."""
    if not torch.cuda.is_available():
        return 0.0
    peak: float = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return peak


def encoding(bench: Bench, folder: Path, shapes: Shapes) -> None:
    """`Embedder.encode` beside the model in a plain loop: 32 texts at a time as they come, padded to the longest."""
    texts = texts_of(shapes.texts, shapes.words)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        if not bench.has_time(f"encoding in {precision}"):
            return
        embedder = Embedder.load(EmbedderSettings(model=str(folder), precision=precision), folder.parent)
        plain = load_model(folder, dtype)

        def ours(embedder: Embedder = embedder) -> int:
            before = embedder.tokens_read
            embedder.encode(texts)
            return embedder.tokens_read - before

        def loop(plain: Any = plain) -> int:
            tokens = 0
            with torch.inference_mode():
                for start in range(0, len(texts), 32):
                    batch = plain.tokenizer(texts[start : start + 32], padding=True, truncation=True, return_tensors="pt").to(plain.device)
                    vectors = plain(dict(batch))["sentence_embedding"]
                    torch.nn.functional.normalize(vectors.float(), dim=1).cpu()
                    tokens += int(batch["attention_mask"].sum())
            return tokens

        peaks, rates = {}, {ours: list[float](), loop: list[float]()}
        for way in [ours, loop] * (ROUNDS + 1):
            rates[way].append(rate(way))
            peaks[way] = peak_gb()
        # The first of each compiles and warms up.
        fast, slow = (statistics.median(rates[way][1:]) for way in (ours, loop))
        bench.rows.append(Measurement("encode", f"Embedder, {precision}", fast, "tokens/s", peaks[ours], f"{fast / slow:.2f} times"))
        bench.rows.append(Measurement("encode", f"plain loop, {precision}", slow, "tokens/s", peaks[loop]))


def writing(bench: Bench, folder: Path, shapes: Shapes) -> None:
    """The enhancer's backend by the number of prompts that it continues together. One at a time is the plain loop."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = GenerationOptions(shapes.new_tokens)
    for precision in ("bf16", "nf4"):
        if not bench.has_time(f"writing in {precision}"):
            return
        backend = TransformersBackend.load(folder, None, precision, device)
        alone = 0.0
        for batch in shapes.batches:
            if not bench.has_time(f"writing in {precision}, {batch} at once"):
                break
            prompts = texts_of(batch, (shapes.words[1] // 4, shapes.words[1]), seed=batch)

            def run(backend: Any = backend, prompts: Sequence[str] = prompts) -> int:
                return sum(answer.tokens for answer in backend.generate(prompts, options))

            rates = [rate(run) for _ in range(2)]
            alone = alone or rates[-1]
            how = f"{precision}, {batch} at once"
            bench.rows.append(Measurement("write", how, rates[-1], "tokens/s", peak_gb(), f"{rates[-1] / alone:.1f} times one at a time"))


class StepClock(TrainerCallback):  # type: ignore[misc]
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - self._started)


def qlora(bench: Bench, folder: Path, shapes: Shapes) -> None:
    """Steps of `train.enhancer`'s own trainer: NF4, rank 16, eight pairs a step."""
    gpu = torch.cuda.is_available()
    for batch, tokens in shapes.training:
        how = f"nf4, {batch} x {tokens} tokens at a time, 8 pairs a step"
        if not bench.has_time(f"QLoRA {how}"):
            continue
        config = SftConfig(batch=batch, effective=8, max_tokens=tokens, max_steps=shapes.steps, save_steps=1000)
        long = texts_of(8 * shapes.steps, (tokens // 2, tokens // 2), seed=tokens)
        pairs = [InstructionPair(str(n), Item(title=f"w{n}"), text) for n, text in enumerate(long)]
        model, tokenizer = sft.load(folder, config, "cuda" if gpu else "cpu")
        clock = StepClock()
        trainer = sft.build_trainer(model, tokenizer, config, pairs, folder.parent / "trainer", workers=1, gpu=gpu, callbacks=[clock])
        peak_gb()
        trainer.train()
        bench.rows.append(Measurement("train", how, statistics.median(clock.seconds[WARM_STEPS:]), "s a step", peak_gb()))
        del model, trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=["real", "tiny"], default="real", help="sizes of the models; tiny also runs on a CPU")
    parser.add_argument("--minutes", type=float, default=7.0, help="no further measurement begins after so many minutes")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    args = parser.parse_args()
    shapes = REAL if args.shapes == "real" else TINY
    if args.shapes == "real" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU here: --shapes tiny runs the same code on a CPU")
    bench = Bench(args.minutes * 60)
    with tempfile.TemporaryDirectory(prefix="matinee-gpu-") as made:
        folder = Path(made)
        with bench.part("encode"):
            encoding(bench, save_encoder(folder, shapes), shapes)
        gemma = save_gemma(folder, shapes)
        with bench.part("write"):
            writing(bench, gemma, shapes)
        with bench.part("train"):
            qlora(bench, gemma, shapes)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print_rows(bench, f"{device}, torch {torch.__version__}, {args.shapes} shapes")
    if args.json:
        report = {"device": device, "torch": torch.__version__, "shapes": args.shapes, "rows": [asdict(row) for row in bench.rows]}
        args.json.write_text(json.dumps(report | {"left_out": bench.left_out, "failed": bench.failed}, indent=1))
    sys.exit(bool(bench.failed))


def print_rows(bench: Bench, title: str) -> None:
    values = [f"{row.value:,.3f}" if row.value < 10 else f"{row.value:,.0f}" for row in bench.rows]
    rows = zip(bench.rows, values, strict=True)
    print(title)
    print_aligned(
        ("what", "how", "measured", "peak, GB", "beside the plain loop"),
        ((row.what, row.how, f"{value} {row.unit}", f"{row.peak_gb:.1f}", row.beside) for row, value in rows),
        width=160,
    )
    for name in bench.left_out:
        print(f"no time was left for {name}")
    for name, reason in bench.failed.items():
        print(f"{name} failed: {reason}")


if __name__ == "__main__":
    run_main(main)
