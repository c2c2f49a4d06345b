"""evaluate: the bare base and each trial, scored item by item over one loaded base."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from lorascope.config import Config, TrainConfig
from lorascope.errors import DeviceError, RecordError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.locks import locked_folder
from lorascope.files.store import read_record, replaced_folder, write_record
from lorascope.machine.libraries import import_uncollected
from lorascope.records import EvaluationRecord, Status, TrialRecord
from lorascope.study.declared import base_name, declare_trial, evaluation_identity, read_trial
from lorascope.study.former_scores import take_over_scores
from lorascope.study.intact import require_adapter, require_data, require_stored
from lorascope.study.intact_scores import require_scores
from lorascope.study.needed import only_needed


def command(configs: Sequence[Config], layout: Layout, *_: object) -> list[EvaluationRecord | None]:
    """Score what is missing of the bare base of each mode and of the trials of `configs`.

    Returns:
        The trials' records; None for a trial that did not complete.
    """
    score_bases(configs, layout)
    return score_trials(only_needed(configs, layout), layout)


def score_bases(configs: Sequence[Config], layout: Layout) -> None:
    """Score what is missing of the bare base of each mode."""
    for config in {config.quant.name: config for config in configs}.values():
        _evaluate_subject(config, layout, base_name(config, layout), None)


def score_trials(configs: Sequence[Config], layout: Layout) -> list[EvaluationRecord | None]:
    """Score what is missing of trained trials; None for one that did not complete."""
    count = len(configs)
    places = [f"{number}/{count} " if count > 1 else "" for number in range(1, count + 1)]
    return [_evaluate(config, layout, place) for config, place in zip(configs, places, strict=True)]


def _evaluate(config: Config, layout: Layout, place: str) -> EvaluationRecord | None:
    declared = declare_trial(config, layout)
    folder = layout.trials(config.quant.name) / declared.name
    if not (folder / RECORD).is_file():
        raise RecordError(
            f"{declared.name}: not trained. Run `lorascope train-lora` with the same settings."
        )
    trial = read_trial(declared, folder)
    if trial.status is not Status.completed:
        print(f"{trial.trial}: not scored, {trial.status} ({trial.reason})")
        return None
    return _evaluate_subject(config, layout, trial.trial, trial, place)


def _evaluate_subject(
    config: Config, layout: Layout, name: str, trial: TrialRecord | None, place: str = ""
) -> EvaluationRecord:
    """Score the trial, or the bare base where it is None, unless its scores are there and made the
    same way."""
    folder = layout.evaluations(config.quant.name) / name
    with locked_folder(folder, layout, wait_seconds=None, on_wait=_tell):
        if trial:
            require_adapter(trial, layout.trials(config.quant.name) / name)
        identity = evaluation_identity(config, layout, trial)
        if (folder / RECORD).is_file():
            known = read_record(folder, EvaluationRecord)
            if known.identity == identity:
                require_scores(known, folder)
                print(f"{name}: scored already")
                return known
        if taken := take_over_scores(config, layout, name, trial):
            print(f"{name}: scores taken over, with the values that the present code gives")
            return taken
        started = time.perf_counter()
        _load(config, layout)
        from lorascope.scoring.evaluation import score_subject

        with replaced_folder(folder) as scratch:
            record = score_subject(config, layout, name, identity, trial, scratch, place, started)
            write_record(scratch, record)
        print(f"{place}{_sentence(record)}", flush=True)
        if config.runtime.tracking and trial:
            from lorascope.tracking import try_publish

            try_publish([], [record], layout)
        return record


def let_go() -> None:
    """Give back the memory of the base that was scored last."""
    if "lorascope.scoring.evaluation" in sys.modules:
        sys.modules["lorascope.scoring.evaluation"].LoadedBase.let_go()


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _load(config: Config, layout: Layout) -> None:
    """Have the base that `config` asks for in memory.

    Raises:
        DeviceError: scoring needs more memory than there is.
    """
    require_data(config, layout)
    import_uncollected(
        "lorascope.scoring.evaluation", "lm_eval.evaluator", "lm_eval.models.huggingface"
    )
    from lorascope.machine.devices import choose_device
    from lorascope.planning.fits import memory_limit
    from lorascope.planning.scored import scoring_refusal
    from lorascope.planning.subject import memory_settings
    from lorascope.scoring.evaluation import LoadedBase

    loaded, limit_gb = LoadedBase.is_of(config, layout), config.runtime.memory_limit_gb
    device = choose_device(config.runtime.device)
    if not loaded:
        require_stored(config, layout)
        LoadedBase.let_go()
        LoadedBase.room = memory_limit(device, None)
    settings = memory_settings(replace(config, train=TrainConfig()))
    if settings not in LoadedBase.fitting:
        room = LoadedBase.room if limit_gb is None else None
        limit = room or memory_limit(device, limit_gb)
        refused = scoring_refusal(config, layout, device.kind, limit)
        if refused is not None:
            raise DeviceError(refused)
    if not loaded:
        LoadedBase.load(config, layout)
    LoadedBase.fitting.add(settings)


def _sentence(record: EvaluationRecord) -> str:
    test = record.splits["test"]
    unlike = test.items_unlike_stock
    accuracy = "" if test.accuracy is None else f"accuracy {test.accuracy:.3f}, "
    if test.accuracy_norm is not None:
        accuracy += f"by length {test.accuracy_norm:.3f}, "
    return (
        f"{record.name}: {accuracy}completion loss {test.completion_loss_nats:.4f} nats "
        f"on {test.items} test items"
        + (f", {unlike} of other tokens than stock lm-eval's" if unlike else "")
    )
