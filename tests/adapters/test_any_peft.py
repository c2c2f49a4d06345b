"""Methods of PEFT that are named by their type: trained, counted, saved, refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from peft import PeftModel

from lorascope.adapters.any_peft import AnyPeftConfig
from lorascope.config import Config, Targets
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.objectives.completion import completion_loss
from lorascope.quantizers.loading import load_base
from lorascope.study.declared import declare_trial
from lorascope.study.grid import expand
from tests.conftest import BASE_OVERRIDES
from tests.devices import CPU
from tests.packs import plan_for, train_alone

Compose = Callable[..., Config]
TRIED = (
    ("ROAD", {"variant": "road_2", "group_size": 8}, "nf4"),
    ("BOFT", {"boft_block_size": 4}, "int8"),
    ("RANDLORA", {"r": 4}, "nf4"),
    ("HRA", {"r": 4}, "fp16"),
    ("LOKR", {"r": 4}, "fp16"),
    ("DELORA", {"r": 4}, "fp16"),
)


@pytest.mark.parametrize(("type_", "settings", "mode"), TRIED)
def test_what_is_saved_is_what_was_trained_and_counted(
    project: Layout,
    compose: Compose,
    tmp_path: Path,
    type_: str,
    settings: dict[str, object],
    mode: str,
) -> None:
    config = compose(
        "adapter=peft", "peft=road", f"quant={mode}",
        "train.steps=3", "train.learning_rate=0.02", "seed=3",
    )  # fmt: skip
    config.adapter = AnyPeftConfig(type=type_, settings=settings, targets=Targets.attention)
    result = train_alone(plan_for(project, config, tmp_path / "adapter"))
    assert result.trainable_parameters == declare_trial(config, project).trainable_parameters
    stored = project.quantized("small", mode)
    rows = read_rows(project.data("small", "toy") / "validation.jsonl")
    base = load_base(stored, config.quant, CPU)
    bare, tokens = completion_loss(base, load_tokenizer(stored), rows, 8)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    saved, _ = completion_loss(loaded, load_tokenizer(stored), rows, 8)
    assert saved / tokens == pytest.approx(result.validation_loss_nats, abs=1e-6)
    assert saved < bare - 0.01 * tokens


REFUSED: tuple[tuple[list[str], str, str], ...] = (
    (["peft.type=LORA"], "fp16", r"peft.type='LORA': has a section of its own. Use adapter=lora"),
    (["peft.type=PREFIX_TUNING"], "fp16", "Use adapter=prefix"),
    (["peft.type=CARTRIDGE"], "fp16", "in front of the tokens; adapter=prompt"),
    (["peft.type=RAOD"], "fp16", r"PEFT has no such method. Choose one of .*ROAD"),
    (["peft.type=RAOD"], "nf4", r"PEFT has no such method. Choose one of .*ROAD"),
    (["peft.type=road"], "nf4", r"peft.type='road': is not the name .* Write it in capitals"),
    ([], "fp16", r"peft.type='': is not the name .* take a file of conf/peft"),
    (["peft.type=HRA"], "nf4", r"peft.type='HRA'.*needs floating-point weights"),
)


@pytest.mark.parametrize(("words", "mode", "message"), REFUSED)
def test_what_cannot_be_trained_is_refused_before_it_starts(
    project: Layout, compose: Compose, words: list[str], mode: str, message: str
) -> None:
    def declared() -> list[str]:
        points = expand(project, [*BASE_OVERRIDES, "adapter=peft", f"quant={mode}", *words])
        return [declare_trial(point, project).identity for point in points]

    with pytest.raises(LorascopeError, match=message):
        declared()


@pytest.mark.parametrize("settings", [{"rank": 3}, {"variant": "road_9"}])
def test_settings_are_pefts_own(
    project: Layout, compose: Compose, settings: dict[str, object]
) -> None:
    config = compose("adapter=peft", "peft=road", "quant=fp16")
    config.adapter = AnyPeftConfig(type="ROAD", settings=settings)
    with pytest.raises(LorascopeError, match="PEFT does not take it for ROAD"):
        declare_trial(config, project)
    config.adapter = AnyPeftConfig(type="HIRA", settings={"modules_to_save": ["lm_head"]})
    with pytest.raises(LorascopeError, match=r"'modules_to_save': says what is.*peft.modul"):
        declare_trial(config, project)


def test_the_files_of_conf_name_methods_that_train(project: Layout) -> None:
    paths = (project.conf / "peft").glob("*.yaml")
    names = sorted(path.stem for path in paths if path.stem != "any")
    points = expand(
        project, [*BASE_OVERRIDES, "quant=fp16", "adapter=peft", f"peft={','.join(names)}"]
    )
    found = []
    for point in points:
        assert isinstance(point.adapter, AnyPeftConfig)
        # RoAd's own default does not divide the small model's features.
        if point.adapter.type == "ROAD":
            point.adapter.settings["group_size"] = 8
        assert declare_trial(point, project).trainable_parameters > 0
        found.append(point.adapter.type.lower())
    assert found == names
