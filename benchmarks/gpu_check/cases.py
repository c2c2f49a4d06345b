"""Steps whose time and memory are measured: bases, modes, packs and batches, by their value."""

from __future__ import annotations

from dataclasses import dataclass, replace

RANK, ALPHA = 16, 16.0
LEARNING_RATE = 1e-4
MIXED_RANKS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Case:
    """One kind of step."""

    tokens: int
    """Tokens of the longest sample."""
    trials: int = 1
    samples: int = 1
    """Samples of a trial and step."""
    ranks: tuple[int, ...] = ()
    """Rank of each trial; empty where all have `RANK`."""
    padded: bool = False
    """Whether a quarter of the samples has half as many tokens."""
    checkpointed: bool = False
    bare: bool = False
    """Whether the bare script makes the steps."""
    outliers: bool = False
    """Whether channels of the norms are scaled up, so that INT8 sees outliers."""
    profiled: bool = False
    """Whether one step is profiled instead of several timed."""

    @property
    def name(self) -> str:
        """What results and plans call it."""
        words = [
            "bare" if self.bare else f"K={self.trials}",
            f"{self.samples}x{self.tokens}" if self.samples > 1 else str(self.tokens),
        ]
        if self.ranks:
            words.append(f"ranks {self.ranks[0]} to {self.ranks[-1]}")
        flags = ("padded", "checkpointed", "outliers", "profiled")
        return " ".join([*words, *(flag for flag in flags if getattr(self, flag))])

    @property
    def all_ranks(self) -> tuple[int, ...]:
        """Rank of each trial."""
        return self.ranks or (RANK,) * self.trials


@dataclass(frozen=True)
class Subject:
    """A base in one mode, and its cases, those that tell most first."""

    shape: str
    mode: str
    cases: tuple[Case, ...]
    limit_seconds: int

    @property
    def name(self) -> str:
        """What results and plans call it."""
        return f"{self.shape} {self.mode}"


FIRST = (Case(256, 8), Case(256), Case(256, bare=True), Case(256, 8, profiled=True))
"""What packing gains where a step is short."""
OTHERS = (
    Case(16, 8), Case(16), Case(16, bare=True), Case(1024, 8), Case(1024), Case(1024, bare=True),
    Case(256, profiled=True),
)  # fmt: skip
LONG = Case(2048, samples=4, checkpointed=True)
SUBJECTS = (
    Subject(
        "llama-2-7b", "nf4",
        (
            *FIRST, Case(256, 8, ranks=MIXED_RANKS), *OTHERS, LONG, replace(LONG, bare=True),
            Case(512, 4, samples=2, padded=True, checkpointed=True),
        ),
        75,
    ),
    Subject("llama-2-7b", "int8", (*FIRST, Case(256, 8, outliers=True), *OTHERS), 60),
    Subject("gemma-2b", "nf4", (Case(512, 8, samples=4, checkpointed=True),), 30),
    Subject("llama-2-7b", "fp16", (*FIRST, *OTHERS), 60),
)  # fmt: skip

SIZES: dict[str, object] = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "bos_token_id": None,
    "eos_token_id": 2, "pad_token_id": 1,
}  # fmt: skip
TINY_CONFIGS: dict[str, dict[str, object]] = {
    "llama-2-7b": {"model_type": "llama", **SIZES, "torch_dtype": "float16"},
    "gemma-2b": {
        "model_type": "gemma", **SIZES, "num_key_value_heads": 1, "head_dim": 32,
        "torch_dtype": "bfloat16",
    },
}  # fmt: skip
TINY_TOKENS = 8


def tiny(subject: Subject) -> Subject:
    """The same with few tokens and trials, for a CPU: each kind of step at one length."""
    small = [
        replace(case, tokens=TINY_TOKENS, trials=min(case.trials, 2), ranks=case.ranks[:2])
        for case in subject.cases
    ]
    return replace(subject, cases=tuple(dict.fromkeys(small)))
