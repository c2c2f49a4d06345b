"""Exports: what others load from them gives the trial's numbers, and nothing is overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lorascope.adapters.attach import load_adapter
from lorascope.adapters.exportable import require_exportable
from lorascope.cli import run_named
from lorascope.comparing.findings import compare
from lorascope.data.rows import read_rows
from lorascope.errors import ConfigError, LorascopeError, RecordError
from lorascope.files.exported import CARD, files_sha256
from lorascope.files.layout import ADAPTER_FILES, Layout
from lorascope.quantizers.loading import load_base
from lorascope.records import TrialRecord
from lorascope.scoring.exported_adapter import check_adapter, close_enough, write_adapter
from lorascope.stages.export import named_in
from lorascope.study.collect import collect
from lorascope.study.named_trial import find_named
from tests.conftest import TEST_DEVICE, TRIAL, compose_one
from tests.devices import CPU

ON = [f"runtime.device={TEST_DEVICE}"] if TEST_DEVICE else []


STUDY = ("quant=nf4", "lora.rank=4", "lora.alpha=16")
"""The grid of the one trial that is trained."""


def export(study: Layout, to: Path, *words: str) -> int:
    asked = ["trial=nf4-r0004", f"to={to}", *STUDY, *words, *ON]
    return run_named("export", [], study, {}, asked)


def the_trial(study: Layout) -> tuple[TrialRecord, Path]:
    config = compose_one(study, *TRIAL)
    (trial,) = collect([config], study).trials
    return trial, study.trials("nf4") / trial.trial / "adapter"


def losses_by_hand(model: object, tokenizer: object, study: Layout) -> list[float]:
    """Summed nats of each validation completion, from logits alone."""
    found = []
    for row in read_rows(study.data("small", "toy") / "validation.jsonl"):
        prompt = tokenizer(row.prompt, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
        whole = tokenizer(row.prompt + row.completion, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
        ids = torch.tensor([whole])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0].float()  # type: ignore[operator]
        said = torch.log_softmax(logits[:-1], -1)[range(len(whole) - 1), whole[1:]]
        found.append(-float(said[len(prompt) - 1 :].sum()))
    return found


def test_the_adapter_gives_the_losses_that_the_trial_was_scored_with(
    study: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By transformers and PEFT alone, against the items of the evaluation."""
    to = tmp_path / "mine"
    assert export(study, to, "license=mit", "push=me/mine") == 0
    said = capsys.readouterr().out
    assert "it gives the very logits of the trial" in said
    assert "--max-lora-rank 8" in said
    assert "would send to me/mine on the hub, a new repository, private" in said
    assert "nothing was sent" in said
    trial, adapter = the_trial(study)
    name = ADAPTER_FILES[1]
    assert (to / name).read_bytes() == (adapter / name).read_bytes()
    base = AutoModelForCausalLM.from_pretrained(study.quantized("small", "nf4"), dtype="float32")
    # bitsandbytes' kernel for bfloat16 would repack the weights, and round otherwise.
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    model = PeftModel.from_pretrained(base, to).eval()
    own = losses_by_hand(model, AutoTokenizer.from_pretrained(to), study)
    (scores,) = study.evaluations("nf4").glob("nf4-r0004*")
    kept = [json.loads(line) for line in (scores / "validation.jsonl").read_text().splitlines()]
    assert own == pytest.approx([item["loss_nats"] for item in kept], abs=2e-3)
    assert trial.trial in (to / CARD).read_text()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_card_has_the_studys_numbers_no_place_and_the_same_bytes_twice_and_is_kept(
    study: Layout,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    to, words = tmp_path / "mine", ("license=mit", "base=owner/small")
    for folder in (to, tmp_path / "again"):
        assert export(study, folder, *words) == 0
    text = (to / CARD).read_text()
    assert bytes_of(to) == bytes_of(tmp_path / "again")
    (to / CARD).write_text(f"{text}\nWords of a person.\n")
    capsys.readouterr()
    assert export(study, to, *words) == 0
    assert "holds this export already" in capsys.readouterr().out
    assert "Words of a person" in (to / CARD).read_text()
    # What is there is sent, where that is asked for: to a hub that nobody answers at.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LorascopeError, match="push=me/mine: the hub was not reached"):
        export(study, to, *words, "push=me/mine", "dry_run=false", "private=false")
    assert "sending to me/mine on the hub, a new repository, public" in capsys.readouterr().out
    # Files that name another base or licence are another export.
    for others in (("license=mit",), ("base=owner/small",), (*words[:1], "base=owner/other")):
        with pytest.raises(ConfigError, match=r"another export is there.*base=owner/small"):
            export(study, to, *others)
    front = yaml.safe_load(text.split("---")[1])
    assert (front["base_model"], front["library_name"]) == ("owner/small", "peft")
    assert front["license"] == "mit"
    assert "datasets" not in front
    trial, _ = the_trial(study)
    found = collect([compose_one(study, *TRIAL)], study)
    scores = found.scores_of(trial)["apart"].splits["test"]
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert {m["type"]: m["value"] for m in metrics} == {
        "accuracy": scores.accuracy, "loss": scores.completion_loss_nats,
    }  # fmt: skip
    findings = compare(found)
    own = next(score for score in findings.cells if not score.cell.base)
    assert own.accuracy is not None
    assert findings.measure.interval(own.accuracy.ends) in text
    assert str(trial.settings["data"]) in text
    assert str(trial.settings["base"]) in text
    assert "thing {question}" not in text
    assert "{question}" in text
    assert not any(place in text for place in (str(tmp_path), str(study.root)))
    config = json.loads((to / ADAPTER_FILES[0]).read_text())
    assert config["base_model_name_or_path"] == "owner/small"


def test_the_merged_model_has_16_bits_and_its_loss_is_what_the_card_says(
    study: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "mine"
    assert export(study, to, "form=merged") == 0
    model = AutoModelForCausalLM.from_pretrained(to, dtype="auto")
    assert model.dtype == torch.float16
    own = losses_by_hand(model.float(), AutoTokenizer.from_pretrained(to), study)
    rows = read_rows(study.data("small", "toy") / "validation.jsonl")
    said = capsys.readouterr().out
    loss = float(said.partition("the loss is ")[2].split()[0])
    # A completion is a word and the end of the text.
    assert loss == pytest.approx(sum(own) / (2 * len(rows)), abs=2e-4)
    # Another export is there, and it stays.
    before = files_sha256(to)
    with pytest.raises(ConfigError, match=r"another export is there.*overwrite=true"):
        export(study, to, "form=adapter")
    assert files_sha256(to) == before
    # A rule for checks that is named is the one that counts.
    (study.conf / "merge" / "few.yaml").write_text("defaults: [default]\nverify_items: 3\n")
    assert export(study, to, "form=adapter", "overwrite=true", "merge=few") == 0
    assert not list(to.glob("model*.safetensors"))
    assert "on 3 validation items" in (to / CARD).read_text()
    # The very same again is made again where that is asked for, its card too.
    (to / CARD).write_text((to / CARD).read_text() + "\nWords of a person.\n")
    assert export(study, to, "overwrite=true", "merge=few") == 0
    assert "Words of a person" not in (to / CARD).read_text()


def test_a_trial_beside_the_grid_has_what_its_data_and_mode_were_made_with(study: Layout) -> None:
    """It says which data and mode these are; words say their settings, and how it is checked."""
    trial, _ = the_trial(study)
    words = ["quant=fp16", "lora.rank=1,2", "merge.verify_items=3", "evaluate.batch_size=5", *ON]
    found = named_in(trial, [], words, study)
    assert found.config.quant.name == "nf4"
    assert (found.config.merge.verify_items, found.config.evaluate.batch_size) == (3, 5)
    for word in ("data.system=hi", "quant.double_quantization=true"):
        with pytest.raises(RecordError, match=f"{word.partition('=')[0]}=.* was made with"):
            named_in(trial, [], [*words, word], study)


@pytest.mark.parametrize(
    ("form", "told"),
    [("fp16", "form=merged precision=float16 writes"), ("int4_sym", "quantize-merged` writes")],
)
def test_a_form_that_ships_is_refused_with_what_writes_it(
    study: Layout, tmp_path: Path, form: str, told: str
) -> None:
    words = (f"serve=apart,{form}", f"trial=nf4-r0004@{form}")
    with pytest.raises(ConfigError, match=f"it ships merged and stored as {form}.*{told}"):
        export(study, tmp_path / "mine", *words)


def test_what_export_did_not_write_is_never_replaced(study: Layout, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("dear")
    with pytest.raises(ConfigError, match="did not write"):
        export(study, tmp_path / "notes", "overwrite=true")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "dear"


def test_other_weights_than_the_trials_are_found_out(study: Layout, tmp_path: Path) -> None:
    trial, adapter = the_trial(study)
    config = find_named(trial.trial, ON, study).config
    write_adapter(tmp_path, adapter, study.base("small"), None, None)
    right = check_adapter(tmp_path, config, study, adapter, None)
    assert right.largest_logit_difference == 0
    assert close_enough(right, config.merge)
    weights = load_file(tmp_path / ADAPTER_FILES[1])
    save_file({name: 9 * value for name, value in weights.items()}, tmp_path / ADAPTER_FILES[1])
    spoilt = check_adapter(tmp_path, config, study, adapter, None)
    assert spoilt.largest_logit_difference > config.merge.max_logit_difference
    assert not close_enough(spoilt, config.merge)
    assert not close_enough(replace(right, largest_logit_difference=float("nan")), config.merge)


def test_a_converter_that_fails_is_quoted_and_leaves_nothing(study: Layout, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    failing = tmp_path / "convert_hf_to_gguf.py"
    failing.write_text("import no_such_module")
    with pytest.raises(ConfigError, match=r"ModuleNotFoundError.*requirements\.txt"):
        export(study, tmp_path / "mine", "form=gguf", f"converter={tmp_path}")
    assert not list(tmp_path.glob("*mine*"))


@pytest.mark.parametrize(
    ("form", "kind", "peft_type", "classes", "told"),
    [
        ("adapter", "full", "FULL", False, "form=merged"),
        ("merged", "prompt", "PROMPT_TUNING", False, "form=adapter"),
        ("gguf", "prompt", "PROMPT_TUNING", False, "form=adapter"),
        ("adapter", "prefix_layer", "PREFIX_LAYER", False, "lorascope generate"),
        ("merged", "bottleneck", "BOTTLENECK", False, "lorascope generate"),
        ("gguf", "lora", "LORA", True, "form=merged"),
    ],
)
def test_a_method_without_a_place_in_a_form_is_refused_with_one_that_has(
    form: str, kind: str, peft_type: str, classes: bool, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        require_exportable(form, kind, peft_type, classes)
    if form == "adapter":
        require_exportable("adapter", "ia3", "IA3", classes)


@pytest.mark.slow
def test_a_python_without_lorascope_loads_what_the_card_says(study: Layout, tmp_path: Path) -> None:
    """The very lines of the card, in a process that never imports lorascope."""
    to = tmp_path / "mine"
    export(study, to, f"base={study.base('small')}")
    code = (to / CARD).read_text().split("```python\n")[1].split("```")[0]
    code = code.replace('"..."', repr(str(to)))
    code += "import sys; print(sorted(m for m in sys.modules if 'lorascope' in m), len(tokenizer))"
    code += "\nprint(type(model).__name__, model.active_peft_config.r)"
    code += "\nimport torch\nwith torch.no_grad():"
    code += "\n    logits = model(input_ids=torch.tensor([[5, 6, 7, 8, 9]])).logits"
    code += "\nprint(logits.float()[0, -1].tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    modules, kind, logits = done.stdout.splitlines()[-3:]
    assert modules.startswith("[] ")
    assert kind == "PeftModelForCausalLM 4"
    trial, adapter = the_trial(study)
    config = find_named(trial.trial, ON, study).config
    base = load_base(study.quantized("small", "nf4"), config.quant, CPU)
    with torch.no_grad():
        own = load_adapter(base, adapter)(input_ids=torch.tensor([[5, 6, 7, 8, 9]])).logits[0, -1]
    # Theirs computes in 16 bits what is not quantized, and bitsandbytes' kernel for a CPU the rest.
    assert json.loads(logits) == pytest.approx(own.tolist(), abs=0.05)
