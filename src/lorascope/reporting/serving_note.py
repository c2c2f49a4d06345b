"""How exported files are served: commands for vLLM and llama.cpp, and what these would refuse.

What vLLM takes was read in its sources and documentation (vllm/config/lora.py and
vllm/lora/peft_helper.py, release 0.27 of August 2026); no vLLM has run these commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from shlex import quote

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that --max-lora-rank takes: an adapter's rank may be any up to it."""
VLLM_READS = ("bitsandbytes",)
"""Quantizations of lorascope's bases that vLLM loads from a folder as they are."""
UNTRIED = "vLLM has not run this command here: it follows vLLM's documentation."


def adapter_note(
    config: Mapping[str, object],
    base: str,
    name: str,
    place: str,
    stored_by: str | None = None,
    merges: bool = True,
    own_code: bool = False,
) -> list[str]:
    """How vLLM serves an adapter beside its base, or why it cannot.

    Args:
        config: adapter_config.json.
        base: what vLLM is to load: a name on the hub, or a folder.
        name: that requests call the adapter.
        stored_by: what the base's config.json calls its quantization; None for floats.
        merges: whether it can be merged.
        own_code: whether the base runs code from its own folder.
    """
    if reasons := [*_refused(config), *_unread(stored_by)]:
        # What it says of merged models with a head for classes, `merged_note` does.
        loads = "" if config.get("task_type") == "SEQ_CLS" else ", which vLLM loads as any model"
        other = f", or export form=merged{loads}" if merges else ""
        return [
            f"vLLM does not serve this adapter as it should be: {'; '.join(reasons)}. Serve it "
            f"with PEFT{other}."
        ]
    rank = config["r"]
    assert isinstance(rank, int)
    room = next(allowed for allowed in VLLM_RANKS if allowed >= rank)
    command = f"{_vllm(base, own_code)} --enable-lora --lora-modules {quote(f'{name}={place}')}"
    return [f"{command} --max-lora-rank {room}", UNTRIED, *_of_base(base), *_on_ends(config)]


def _vllm(model: str, own_code: bool) -> str:
    return f"vllm serve {quote(model)}{' --trust-remote-code' if own_code else ''}"


def _of_base(base: str) -> Iterator[str]:
    if base.startswith(("models/", "/")):
        yield (
            f"{base} is the study's own folder of the base, in the mode that the adapter was "
            "trained beside: on other weights it gives other numbers."
        )


def _on_ends(config: Mapping[str, object]) -> Iterator[str]:
    modules = config.get("target_modules")
    if isinstance(modules, list) and {"lm_head", "embed_tokens"} & {*modules}:
        yield "vLLM takes adapters on head and embeddings for some architectures only."


def _unread(stored_by: str | None) -> Iterator[str]:
    if stored_by not in (None, *VLLM_READS):
        yield f"its base is stored as {stored_by}, which vLLM does not read"


def _refused(config: Mapping[str, object]) -> Iterator[str]:
    """What vLLM raises for, and what it passes over without a word."""
    if config["peft_type"] != "LORA":
        yield f"it knows LoRA alone, not {config['peft_type']}"
        return
    rank = config["r"]
    if isinstance(rank, int) and rank > VLLM_RANKS[-1]:
        yield f"rank {rank} is above {VLLM_RANKS[-1]}, the most that --max-lora-rank takes"
    if config.get("use_dora"):
        yield "it refuses DoRA (use_dora)"
    if config.get("modules_to_save"):
        yield "it refuses layers that are trained in full (modules_to_save)"
    if config.get("bias", "none") != "none":
        yield "it refuses trained biases (bias)"
    for pattern in ("rank_pattern", "alpha_pattern"):
        if config.get(pattern):
            yield f"it does not read {pattern}, and would scale these layers as all others"


def merged_note(place: str, classes: bool, own_code: bool = False) -> list[str]:
    """How vLLM serves a merged model."""
    if classes:
        return [
            "vLLM serves models with a head for classes for some architectures only: see its page "
            "of supported models. transformers loads this folder as it is."
        ]
    return [_vllm(place, own_code), UNTRIED]


def gguf_note(file: str) -> list[str]:
    """How llama.cpp serves a GGUF file."""
    return [
        f"llama-server -m {quote(file)}",
        "llama.cpp has not run this file here: its tensors were compared.",
    ]
