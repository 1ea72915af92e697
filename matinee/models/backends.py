"""Two engines that continue prompts: `transformers` (bf16, fp32, int8, nf4, and 4 to 2 bits by HQQ) and CTranslate2 (int8, for CPUs).

Both load from a local folder, batch, stop at the same places, penalise only what they wrote themselves, and are deterministic for a
given seed and batch. Neither knows items, prompts' wording or what a good answer is: that is `enhancer`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from safetensors import SafetensorError

from matinee.errors import ModelError
from matinee.models import convert, resolve

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

PRECISIONS = ("ct2-int8", "int8", "nf4", "bf16", "fp32", "hqq4", "hqq3", "hqq2")

# Weights that share a scale: the fewer bits, the fewer. For 270M parameters, fewer than 4 bits write no sense (docs/experiments.md).
_HQQ_GROUP = {4: 64, 3: 32, 2: 16}


@dataclass(frozen=True)
class GenerationOptions:
    """How to write: `one_line` stops at a line's end, `sentences` after that many ends of sentences, `deadline` at that monotonic time."""

    max_new_tokens: int
    temperature: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    one_line: bool = False
    sentences: int = 0
    deadline: float | None = None


@dataclass(frozen=True)
class Completion:
    text: str
    tokens: int


class Backend(Protocol):
    """A loaded model that continues prompts."""

    precision: str
    device: str
    tokenizer: "PreTrainedTokenizerBase"

    def generate(self, prompts: Sequence[str], options: GenerationOptions) -> list[Completion]: ...


def pick_precision(precision: str, *, cuda: bool) -> str:
    """`auto` resolved: bf16 on a GPU, CTranslate2 int8 on a CPU."""
    problem = precision_problem(precision, ("auto", *PRECISIONS))
    if problem is not None:
        raise ModelError(problem)
    if precision == "auto":
        return "bf16" if cuda else "ct2-int8"
    return precision


def precision_problem(precision: str, known: Sequence[str]) -> str | None:
    """Why a precision can't be used, None where it can."""
    if precision in ("fp16", "float16", "half"):
        return (
            "Gemma 3 overflows in fp16 (its activations pass 65,504), and writes or learns nonsense: use bf16, or fp32 without bf16 support"
        )
    return None if precision in known else f"precision {precision!r} is unknown: use {', '.join(known)}"


def load(
    model_dir: Path, adapter: Path | None, precision: str, *, models_dir: Path, threads: int = 0, progress: resolve.Progress | None = None
) -> Backend:
    """The model with its adapter, ready to write. Raises `ModelError` where its files can't be loaded."""
    import torch

    cuda = torch.cuda.is_available()
    chosen = pick_precision(precision, cuda=cuda)
    if chosen.startswith("hqq") and find_spec("hqq") is None:
        raise ModelError(f"precision {chosen} needs the package hqq, which is not installed (extra `edge`): run pip install hqq")
    if threads:
        torch.set_num_threads(threads)
    try:
        if chosen == "ct2-int8":
            converted = resolve.ctranslate2_dir(model_dir, adapter, models_dir=models_dir, progress=progress)
            return CTranslate2Backend(model_dir, converted, threads or torch.get_num_threads())
        return TransformersBackend.load(model_dir, adapter, chosen, "cuda" if cuda else "cpu")
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        with_adapter = f" with the adapter {adapter}" if adapter else ""
        raise ModelError(f"cannot load {model_dir}{with_adapter} in {chosen}: {error}") from error


class _Stops:
    """Where an answer ends, as token ids of one tokenizer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self.ends = [i for i in (tokenizer.eos_token_id, vocabulary.get("<end_of_turn>")) if i is not None]
        self.lines = [i for token, i in vocabulary.items() if token and not token.strip("\n")]
        self.sentences = frozenset(i for token, i in vocabulary.items() if token[-1:] in (".", "!", "?", "…"))

    def ids(self, options: GenerationOptions) -> list[int]:
        return sorted({*self.ends, *(self.lines if options.one_line else ())})

    def watcher(self, options: GenerationOptions) -> Callable[[int, int], bool]:
        """`(row, token) -> stop`, fed with every token as it is written."""
        ended: dict[int, int] = {}

        def stop(row: int, token: int) -> bool:
            ended[row] = ended.get(row, 0) + (token in self.sentences)
            late = options.deadline is not None and time.monotonic() > options.deadline
            return late or bool(options.sentences and ended[row] >= options.sentences)

        return stop


class CTranslate2Backend:
    """CTranslate2 int8 on the CPU: the fastest way there for one prompt, or for prompts of about one length.

    What the longer ones of a batch have more than the shortest is read token by token, as if it were being written. (`static_prompt`, which
    would read the worked examples once, corrupts the heap in ctranslate2 4.8.5.)
    """

    precision = "ct2-int8"
    device = "cpu"

    def __init__(self, model_dir: Path, converted: Path, threads: int) -> None:
        import ctranslate2

        self.tokenizer = load_tokenizer(model_dir)
        self._stops = _Stops(self.tokenizer)
        self._seed: Callable[[int], None] = ctranslate2.set_random_seed
        self._load: Callable[[], ctranslate2.Generator] = partial(
            ctranslate2.Generator, str(converted), device="cpu", compute_type="int8", intra_threads=threads, inter_threads=1
        )
        self.generator = self._load()

    def generate(self, prompts: Sequence[str], options: GenerationOptions) -> list[Completion]:
        if not prompts:
            return []
        ids = [self.tokenizer(prompt).input_ids for prompt in prompts]
        stop = self._stops.watcher(options)
        self._seed(options.seed)
        # CTranslate2 seeds a thread at its first sample only: to be reproducible, a call that samples gets threads of its own.
        generator = self._load() if options.temperature else self.generator
        results = generator.generate_batch(
            [self.tokenizer.convert_ids_to_tokens(row) for row in ids],
            max_length=options.max_new_tokens,
            sampling_topk=1 if options.temperature == 0 else 0,
            sampling_topp=1 if options.temperature == 0 else 0.95,
            sampling_temperature=options.temperature or 1,
            repetition_penalty=options.repetition_penalty,
            end_token=self._stops.ids(options),
            include_prompt_in_result=False,
            callback=lambda step: stop(step.batch_id, step.token_id),
        )
        written = [result.sequences_ids[0] for result in results]
        return [Completion(self.tokenizer.decode(row, skip_special_tokens=True), len(row)) for row in written]


class TransformersBackend:
    """`transformers` in bf16, fp32, int8 and nf4 (bitsandbytes) or 4, 3 and 2 bits (HQQ), on a GPU where there is one."""

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", precision: str) -> None:
        """Around a model and its tokenizer that are in memory already, on the device where the model is."""
        self.precision = precision
        self.device = str(model.device)
        self.tokenizer = tokenizer
        self._stops = _Stops(tokenizer)
        self.model = model

    @classmethod
    def load(cls, model_dir: Path, adapter: Path | None, precision: str, device: str) -> Self:
        """The model of a folder, with its adapter. Raises `ModelError` where tensors are missing."""
        with convert.quiet():
            model = convert.load_whole(
                convert.model_class(model_dir),
                model_dir,
                dtype=compute_dtype(precision, device),
                quantization_config=quantization(precision, device),
                device_map={"": device},
            )
            model = _with_adapter(model, adapter, precision)
        if precision.startswith("hqq"):
            _to_hqq(model, int(precision[-1]), device)
        model.eval()
        # What a model's own file says about sampling would compete with `GenerationOptions`, and warn about it.
        model.generation_config = type(model.generation_config)()
        return cls(model, load_tokenizer(model_dir), precision)

    def generate(self, prompts: Sequence[str], options: GenerationOptions) -> list[Completion]:
        import torch
        from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor, StoppingCriteriaList

        if not prompts:
            return []
        batch = self.tokenizer(list(prompts), return_tensors="pt", padding=True).to(self.device)
        length = batch["input_ids"].shape[1]
        penalty = RepetitionPenaltyLogitsProcessor(options.repetition_penalty, prompt_ignore_length=length)
        sampling = (
            {"do_sample": True, "temperature": options.temperature, "top_p": 0.95, "top_k": 0}
            if options.temperature
            else {"do_sample": False}
        )
        # The seed is this call's alone: it must not make the rest of the process repeat itself.
        with torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(options.seed)
            output = self.model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=options.max_new_tokens,
                logits_processor=LogitsProcessorList([penalty] if options.repetition_penalty != 1 else []),
                stopping_criteria=StoppingCriteriaList([_Watch(self._stops.watcher(options))]),
                eos_token_id=self._stops.ids(options),
                pad_token_id=self.tokenizer.pad_token_id,
                **sampling,
            )
        return [self._answer(row.tolist(), options) for row in output[:, length:].cpu()]

    def _answer(self, row: list[int], options: GenerationOptions) -> Completion:
        stops = {*self._stops.ids(options), self.tokenizer.pad_token_id}
        end = next((position for position, token in enumerate(row) if token in stops), len(row))
        return Completion(self.tokenizer.decode(row[:end], skip_special_tokens=True), end)


class _Watch:
    """A `_Stops.watcher` as a stopping criterion of `transformers`."""

    def __init__(self, stop: Callable[[int, int], bool]) -> None:
        self._stop = stop

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor", **_: object) -> "torch.Tensor":
        import torch

        tokens = input_ids[:, -1].tolist()
        return torch.tensor([self._stop(row, token) for row, token in enumerate(tokens)], device=input_ids.device)


def load_tokenizer(model_dir: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model that writes: padded on the left."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def computes_in_bf16(device: str) -> bool:
    """Whether the GPU or CPU has bf16 instructions. A CPU without them takes a hundred times as long for a training step in bf16."""
    import torch

    return bool(torch.cuda.is_bf16_supported()) if device.startswith("cuda") else bool(torch.cpu._is_avx512_bf16_supported())


def compute_dtype(precision: str, device: str) -> "torch.dtype":
    """The torch dtype of weights that are not quantised, and of the products. fp32 if bf16 is slow here and was not chosen by name."""
    import torch

    slow = precision != "bf16" and not computes_in_bf16(device)
    return torch.float32 if precision == "fp32" or slow else torch.bfloat16


def quantization(precision: str, device: str) -> "BitsAndBytesConfig | None":
    """The bitsandbytes configuration of nf4 (with double quantisation; Dettmers et al., 2023) and int8; None for the others."""
    from transformers import BitsAndBytesConfig

    if precision == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype(precision, device),
        )
    return BitsAndBytesConfig(load_in_8bit=True) if precision == "int8" else None


def _with_adapter(model: "PreTrainedModel", adapter: Path | None, precision: str) -> "PreTrainedModel":
    if adapter is None:
        return model
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, adapter, use_safetensors=True)
    # Merging into quantised weights would round the adapter away, and a separate adapter costs little. HQQ quantises after the merge.
    return adapted if precision in ("nf4", "int8") else adapted.merge_and_unload()


def _to_hqq(model: "PreTrainedModel", bits: int, device: str) -> None:
    """Its blocks' matrices quantised in place, without calibration (Badri and Shaji, 2023). Embeddings and output layer stay as they are.

    Not through `transformers`, whose own way to HQQ refuses a CPU.
    """
    import torch
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    config = BaseQuantizeConfig(nbits=bits, group_size=_HQQ_GROUP[bits], axis=1)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and "layers." in name and "vision" not in name:
            parent, _, leaf = name.rpartition(".")
            quantised = HQQLinear(module, config, compute_dtype=compute_dtype(f"hqq{bits}", device), device=device)
            setattr(model.get_submodule(parent), leaf, quantised)
