"""Small random models of several architectures, with tokenizers of their own, and rows of two
classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    DebertaConfig,
    DebertaForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from lorascope.bases.class_base import write_class_base
from lorascope.config import DataConfig, Format, ModelConfig, QuantConfig, Scoring, Storage
from lorascope.data.classes import labelled
from lorascope.data.files import RawRow
from lorascope.data.prepare import prepare_row
from lorascope.data.rows import PreparedRow, write_rows
from lorascope.data.templates import no_template
from lorascope.data.tokenization import load_tokenizer
from lorascope.quantizers.loading import quantize_base
from tests.devices import CPU

WORDS = ("good", "fine", "great", "bad", "dull", "awful", "film", "plot", "a", "the", "is", "and")
CLASSES = ["negative", "positive"]
FRAMES = {
    "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "roberta": ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
}
"""What stands around one text, and around two."""


def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words: BERT's with types and no end of text, RoBERTa's, or GPT-2's."""
    start, pad, end = ("[CLS]", "[PAD]", "[SEP]") if kind == "bert" else ("<s>", "<pad>", "</s>")
    special = [pad, "[UNK]", start, end] if kind == "bert" else [start, pad, end, "[UNK]"]
    pieces = [*special, "[MASK]", *WORDS]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind in FRAMES:
        single, pair = FRAMES[kind]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=[(t, vocabulary[t]) for t in (start, end)]
        )
    names = {"unk_token": "[UNK]", "pad_token": pad, "mask_token": "[MASK]"}
    if kind == "bert":
        names |= {"cls_token": start, "sep_token": end}
    else:
        names |= {"bos_token": start, "eos_token": end}
    types = ["token_type_ids"] if kind == "bert" else []
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **names,
        model_input_names=["input_ids", *types, "attention_mask"], model_max_length=32,
    )  # fmt: skip


SIZE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 32,
}  # fmt: skip


def _model(name: str, vocabulary: int) -> PreTrainedModel:
    if name == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary,
                n_embd=32,
                n_layer=2,
                n_head=2,
                n_positions=32,
                bos_token_id=0,
                eos_token_id=2,
            )
        )
    if name == "pretrained_bert":
        return BertForPreTraining(BertConfig(vocab_size=vocabulary, pad_token_id=0, **SIZE))
    if name == "bert":
        return BertForMaskedLM(BertConfig(vocab_size=vocabulary, pad_token_id=0, **SIZE))
    if name == "deberta":
        return DebertaV2ForMaskedLM(
            DebertaV2Config(
                vocab_size=vocabulary,
                pad_token_id=0,
                relative_attention=True,
                position_buckets=8,
                norm_rel_ebd="layer_norm",
                share_att_key=True,
                pos_att_type=["p2c", "c2p"],
                position_biased_input=False,
                type_vocab_size=0,
                **SIZE,
            )
        )
    if name == "first_deberta":
        return DebertaForMaskedLM(
            DebertaConfig(
                vocab_size=vocabulary,
                relative_attention=True,
                pos_att_type=["p2c", "c2p"],
                type_vocab_size=0,
                **SIZE,
            )
        )
    sizes = {**SIZE, "max_position_embeddings": 34}
    config = RobertaConfig(vocab_size=vocabulary, type_vocab_size=1, pad_token_id=1, **sizes)
    if name == "headed_roberta":
        return RobertaForSequenceClassification(config)
    return RobertaForMaskedLM(config)


TOKENIZERS = {
    "bert": "bert",
    "pretrained_bert": "bert",
    "deberta": "bert",
    "first_deberta": "bert",
    "gpt2": "gpt2",
}


@dataclass(frozen=True)
class ClassBase:
    """A base with a head for two classes, as prepared and as stored, and prepared rows."""

    base: Path
    stored: Path
    quant: QuantConfig
    data: Path
    rows: list[PreparedRow]


def save_source(name: str, folder: Path) -> None:
    """The model without such a head, as it would be given, and its tokenizer."""
    tokenizer = make_tokenizer(TOKENIZERS.get(name, "roberta"))
    torch.manual_seed(3)
    model = _model(name, len(tokenizer))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            # Large enough for logits that differ.
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_class_base(name: str, folder: Path, storage: str = "float32") -> ClassBase:
    """The model as a base with a head, without dropout, stored in a mode."""
    source, base, stored = folder / "source", folder / "base", folder / "stored"
    save_source(name, source)
    base.mkdir()
    write_class_base(source, base, ModelConfig(name, path=str(source), classes=2, dropout=0.0))
    quant = QuantConfig("mode", Storage(storage))
    quantize_base(base, quant, CPU, stored)
    for file in base.glob("*token*"):
        (stored / file.name).write_bytes(file.read_bytes())
    data = folder / "data"
    data.mkdir()
    rows = class_rows(40)
    for split, own in {"train": rows[:32], "validation": rows[32:]}.items():
        write_rows(data / f"{split}.jsonl", own)
    return ClassBase(base, stored, quant, data, rows)


def class_rows(count: int, second: bool = False) -> list[PreparedRow]:
    """Rows of different lengths whose class one of their words tells."""
    config = DataConfig(
        "toy", format=Format.labelled, scoring=Scoring.classes, classes=CLASSES,
        second_text_column="more" if second else None,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(count):
        length = 1 + number % 9
        drawn = torch.randint(6, len(WORDS), (length,), generator=generator).tolist()
        told = WORDS[number % 6]
        text = " ".join([*(WORDS[word] for word in drawn), told])
        values = {"text": text, "more": f"the plot is {told}", "label": int(number % 6 < 3)}
        row = RawRow(values, f"rows.jsonl, line {number + 1}")
        rows.append(_prepared(row, config))
    return rows


def _prepared(row: RawRow, config: DataConfig) -> PreparedRow:
    return prepare_row(labelled(row, config), no_template(make_tokenizer("bert")), config)


def config_values(folder: Path) -> dict[str, object]:
    """Values of a folder's config.json."""
    values: dict[str, object] = json.loads((folder / "config.json").read_text())
    return values


def tokenizer_of(base: ClassBase) -> PreTrainedTokenizerFast:
    """Its tokenizer, as stages load it."""
    return load_tokenizer(base.base)
