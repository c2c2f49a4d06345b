"""A second study's base is the model that a trial of a first one became."""

from __future__ import annotations

import shutil

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from lorascope.bases.config_json import model_config_dict
from lorascope.config import DeviceKind, Precision, QuantConfig, Storage
from lorascope.errors import ConfigError, RecordError
from lorascope.files.layout import Layout
from lorascope.files.store import read_record
from lorascope.machine.devices import choose_device
from lorascope.quantizers.loading import load_base
from lorascope.records import BaseRecord, TrialRecord
from lorascope.stages import prepare_base, quantize_base
from lorascope.starting.found_model import declared_model
from lorascope.study.leftovers import started_from
from tests.conftest import compose_one

NF4 = QuantConfig("nf4", Storage.nf4, compute=Precision.float32)
SECOND = "name: second\nkind: trial\n"


def declare_second(layout: Layout) -> TrialRecord:
    """Write conf/model/second.yaml, which starts from the only trial; that trial."""
    (record,) = (read_record(p, TrialRecord) for p in layout.trials("nf4").glob("nf4-*"))
    (layout.conf / "model/second.yaml").write_text(f"{SECOND}start_from: {record.trial}\n")
    return record


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(2, 26).reshape(2, 12)
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=ids).logits
    return found


def test_its_base_computes_what_the_trial_computed_and_what_is_gone_is_made_again(
    study: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = declare_second(study)
    adapter = study.trials("nf4") / trial.trial / "adapter"
    trained = load_base(study.quantized("small", "nf4"), NF4, choose_device(DeviceKind.cpu), "auto")
    expected = logits(PeftModel.from_pretrained(trained, adapter))
    config = compose_one(study, "model=second")
    # Before anything is prepared it has the shapes of the first study's base.
    assert model_config_dict(config.model, study)["model_type"] == "llama"
    assert declared_model(config.model, study).folder == study.base("small")
    # `prune` leaves the trial alone, whatever the grid of the second study names.
    assert started_from([config], study) == {adapter.parent}
    # What `dvc exp run` takes away of a study that its graph does not name.
    shutil.rmtree(study.quantized("small", "nf4"))
    shutil.rmtree(study.base("small"))
    with pytest.raises(RecordError, match="prepare-base model=small` and `lorascope quantize-base"):
        model_config_dict(config.model, study)
    record = prepare_base.command([config], study)
    assert "models/small/nf4 is gone, and is made again" in capsys.readouterr().out
    assert trial.trial in record.source
    assert record.settings is not None
    assert record.settings["model.start_from"] == trial.trial
    second = AutoModelForCausalLM.from_pretrained(study.base("second"), dtype=torch.float32)
    torch.testing.assert_close(logits(second), expected, atol=1e-4, rtol=0)
    assert read_record(study.base("second"), BaseRecord).content_sha256 == record.content_sha256
    stored = quantize_base.command([compose_one(study, "model=second", "quant=fp16")], study)
    assert stored.base_sha256 == record.content_sha256


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("start_from: nf4-r0004\n", "may be called so tomorrow. Write its name in full: nf4-r0004"),
        ("start_from: nf4-r0005\n", "no trial is called so. Did you mean nf4-r0004-"),
        ("", "kind=trial, and no other, starts from a trial"),
    ],
)
def test_a_trial_is_named_in_full(study: Layout, settings: str, told: str) -> None:
    (study.conf / "model/second.yaml").write_text(SECOND + settings)
    with pytest.raises(ConfigError, match=told):
        prepare_base.command([compose_one(study, "model=second")], study)


def test_the_base_of_the_trial_keeps_its_name(study: Layout) -> None:
    trial = declare_second(study)
    model = f"name: small\nkind: trial\nstart_from: {trial.trial}\n"
    (study.conf / "model/small.yaml").write_text(model)
    with pytest.raises(ConfigError, match="its own base is called small, too"):
        prepare_base.command([compose_one(study, "model=small")], study)
    assert read_record(study.base("small"), BaseRecord).source.startswith("local: ")
