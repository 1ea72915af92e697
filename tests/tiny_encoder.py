"""Random encoders of two layers with a tokenizer of words, in sentence-transformers' form. Does not know pytest."""

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from matinee.models.convert import quiet

NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [
    "a",
    "the",
    "quiet",
    "drama",
    "about",
    "two",
    "brothers",
    "lighthouse",
    "keeper",
    "storm",
    "island",
    "heist",
    "king",
    "winter",
    "of",
]
PROMPTS = {"query": "quiet storm ", "document": "king of winter "}


def save(
    folder: Path, kind: str = "modernbert", *, pooling: str = "cls", prompts: dict[str, str] | None = None, seed: int = 0, length: int = 64
) -> Path:
    """Save a random model of `kind` (modernbert, roberta) in `folder`; the same arguments give the same files."""
    transformer = folder.with_name(f"{folder.name}-transformer")
    with quiet():
        _tokenizer(length).save_pretrained(transformer)
        torch.manual_seed(seed)
        _model(kind).eval().save_pretrained(transformer)
        module = Transformer(str(transformer), max_seq_length=length)
        parts: list[Any] = [module, Pooling(32, pooling_mode=pooling), Normalize()]
        SentenceTransformer(modules=parts, prompts=PROMPTS if prompts is None else prompts, device="cpu").save_pretrained(str(folder))
    return folder


def _tokenizer(length: int) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(NAMES + WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=length, model_input_names=["input_ids", "attention_mask"], **special
    )


def _model(kind: str) -> Any:
    size = {"vocab_size": len(NAMES + WORDS), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    # Random weights at the usual scale hardly tell texts apart.
    if kind == "roberta":
        return RobertaModel(RobertaConfig(**size, **ids, max_position_embeddings=80, type_vocab_size=1, initializer_range=0.5))
    return ModernBertModel(
        ModernBertConfig(**size, **ids, cls_token_id=2, sep_token_id=3, max_position_embeddings=80, initializer_range=0.5)
    )
