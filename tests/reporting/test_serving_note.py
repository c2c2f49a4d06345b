"""Commands for servers, and what these servers refuse: each rule of vLLM's that a method meets."""

from __future__ import annotations

from shlex import split

import pytest

from lorascope.reporting.serving_note import adapter_note, gguf_note, merged_note

PLAIN = {
    "peft_type": "LORA", "r": 16, "lora_alpha": 32, "use_dora": False, "modules_to_save": None,
    "bias": "none", "rank_pattern": {}, "alpha_pattern": {},
}  # fmt: skip


@pytest.mark.parametrize(("rank", "room"), [(1, 1), (2, 8), (16, 16), (17, 32), (400, 512)])
def test_vllm_gets_the_least_rank_that_it_takes_and_that_holds_the_adapter(
    rank: int, room: int
) -> None:
    command, untried = adapter_note(PLAIN | {"r": rank}, "me/base", "mine", "here")
    assert command == (
        f"vllm serve me/base --enable-lora --lora-modules mine=here --max-lora-rank {room}"
    )
    assert "not run" in untried


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"r": 513}, "rank 513 is above 512"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["score"]}, "modules_to_save"),
        ({"bias": "all"}, "trained biases"),
        ({"rank_pattern": {"down_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"down_proj": 4}}, "alpha_pattern"),
        ({"peft_type": "IA3"}, "not IA3"),
    ],
)
def test_what_vllm_does_not_serve_gets_no_command_but_a_reason_and_another_form(
    change: dict[str, object], told: str
) -> None:
    (sentence,) = adapter_note(PLAIN | change, "me/base", "mine", "here")
    assert told in sentence
    assert "form=merged" in sentence
    assert "vllm serve" not in sentence


def test_a_base_that_vllm_does_not_read_gets_no_command() -> None:
    (sentence,) = adapter_note(PLAIN, "models/m/int4_sym", "mine", "here", "lorascope_torchao")
    assert "vLLM does not read" in sentence
    command, *_ = adapter_note(PLAIN, "models/m/nf4", "mine", "here", "bitsandbytes")
    assert command.startswith("vllm serve models/m/nf4 --enable-lora")
    (unmerged,) = adapter_note(PLAIN | {"peft_type": "P_TUNING"}, "b", "n", "here", merges=False)
    assert "form=merged" not in unmerged


def test_a_head_for_classes_gets_no_command() -> None:
    (adapter,) = adapter_note(
        PLAIN | {"modules_to_save": ["score"], "task_type": "SEQ_CLS"}, "b", "n", "here"
    )
    assert "as any model" not in adapter
    assert merged_note("here", classes=False)[0] == "vllm serve here"
    assert "vllm serve" not in " ".join(merged_note("here", classes=True))


def test_commands_can_be_pasted_and_trust_a_base_that_brings_code() -> None:
    command, *_ = adapter_note(PLAIN, "my/base", "mine", "a dir/it", own_code=True)
    assert split(command) == [
        "vllm", "serve", "my/base", "--trust-remote-code", "--enable-lora", "--lora-modules",
        "mine=a dir/it", "--max-lora-rank", "16",
    ]  # fmt: skip
    assert split(merged_note("a dir", False, own_code=True)[0]) == [
        "vllm", "serve", "a dir", "--trust-remote-code",
    ]  # fmt: skip
    assert split(gguf_note("a dir/x.gguf")[0]) == ["llama-server", "-m", "a dir/x.gguf"]
