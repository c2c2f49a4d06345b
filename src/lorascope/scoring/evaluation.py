"""The base that this process scores trials on, and the record of what one scores."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from lorascope.adapters.attach import detach, load_adapter
from lorascope.config import Config, QuantConfig
from lorascope.data.tokenization import load_tokenizer
from lorascope.errors import DeviceError
from lorascope.files.layout import Layout
from lorascope.files.provenance import capture
from lorascope.files.store import read_record, sha256_of_file
from lorascope.machine.devices import choose_device, use_threads
from lorascope.machine.environment import use_determinism
from lorascope.machine.memory import (
    MemoryLimit,
    give_back_freed_memory,
    is_out_of_memory,
    keep_freed_memory,
)
from lorascope.quantizers.loading import load_base
from lorascope.records import (
    DataCard,
    EvaluationRecord,
    FootprintRecord,
    ServedForm,
    TrialRecord,
)
from lorascope.scoring.asked_scores import Asked

T = TypeVar("T")


class LoadedBase:
    """The base that this process scored last: the trials of one sweep share it."""

    key: str | None = None
    model: Any = None
    tokenizer: Any = None
    device_name: str = "unknown"
    threads: int = 0
    room: MemoryLimit | None = None
    """Memory that there was before it was loaded."""
    fitting: ClassVar[set[str]] = set()
    """Settings of what was judged to fit beside it: each is judged once."""

    @classmethod
    def is_of(cls, config: Config, layout: Layout) -> bool:
        """Whether it is the base that `config` asks for."""
        return cls.key == _base_key(config, layout)

    @classmethod
    def load(cls, config: Config, layout: Layout) -> None:
        """Load the base that `config` asks for, once the former one is gone."""
        cls.let_go()
        cls._load(layout.quantized(config.model.name, config.quant.name), config.quant, config)
        cls.key = _base_key(config, layout)

    @classmethod
    @contextmanager
    def served(cls, folder: Path, mode: QuantConfig, config: Config) -> Iterator[None]:
        """A model in `folder`, stored in `mode`, in place of the base; it is gone afterwards."""
        cls.let_go()
        try:
            cls._load(folder, mode, config)
            yield
        finally:
            cls.let_go()

    @classmethod
    def _load(cls, folder: Path, mode: QuantConfig, config: Config) -> None:
        device = choose_device(config.runtime.device, config.runtime.place)
        use_determinism(config.runtime.deterministic)
        keep_freed_memory()
        cls.threads = use_threads(config.runtime.threads)
        cls.model = load_base(folder, mode, device, config.model.attention)
        cls.tokenizer = load_tokenizer(folder)
        cls.device_name = device.name

    @classmethod
    @contextmanager
    def adapted(cls, adapter: Path | None) -> Iterator[Any]:
        """The base, with an adapter on it where one is given; it is bare again afterwards. After an
        error it is loaded anew, since the adapter may still sit on it."""
        try:
            model = cls.model if adapter is None else load_adapter(cls.model, adapter)
            yield model
            cls.model = model if adapter is None else detach(model)
        except BaseException:
            cls.key = None
            raise

    @classmethod
    def let_go(cls) -> None:
        """Give back the memory of the base that was loaded."""
        cls.key = cls.model = cls.tokenizer = None
        cls.fitting.clear()
        give_back_memory()


def give_back_memory() -> None:
    """Give back what nothing holds any more: hooks on a model refer to the model."""
    gc.collect()
    give_back_freed_memory()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _base_key(config: Config, layout: Layout) -> str:
    folder = layout.quantized(config.model.name, config.quant.name)
    stored = read_record(folder, FootprintRecord).content_sha256
    runtime = config.runtime
    on = f"{runtime.device} {runtime.place}"
    return f"{stored} {config.quant.compute} {config.model.attention} {on}"


def score_subject(
    config: Config,
    layout: Layout,
    name: str,
    identity: str,
    trial: TrialRecord | None,
    folder: Path,
    place: str,
    started: float,
    served: ServedForm | None = None,
    base: Path | None = None,
) -> EvaluationRecord:
    """Score what is loaded, with the adapter of `trial` where there is one that is not merged.
    Items and distributions go into `folder`.

    Args:
        place: of the trial in its sweep, such as "3/16 ", for those who watch.
        started: when the work began, by `time.perf_counter`.
        served: what is loaded, where `trial` is merged into it.
        base: folder with the bare base's items, which a trial's pairs are held against.
    """
    data = layout.data(config.model.name, config.data.name)
    card, title = read_record(data, DataCard), f"{place}{name}"
    asked = Asked(config, data, card, LoadedBase.tokenizer, folder, title, base)
    trials = layout.trials(config.quant.name)
    adapter = trials / trial.trial / "adapter" if trial and served is None else None
    with LoadedBase.adapted(adapter) as model:
        found, batch_size = with_room(
            lambda size: asked.scores(model, size), config.evaluate.batch_size
        )
        said = asked.protocol(model, batch_size)
    return EvaluationRecord(
        name=name,
        identity=identity,
        quant=config.quant.name,
        trial_identity=trial.identity if trial else None,
        key=trial.key if trial else None,
        scoring=card.scoring,
        batch_size=batch_size,
        splits=found.splits,
        lm_eval_metrics=found.further,
        items_sha256={split: sha256_of_file(folder / f"{split}.jsonl") for split in found.splits},
        distributions_sha256=found.distributions_sha256,
        protocol=said,
        served=served,
        forgetting=config.forgetting.name if config.forgetting else None,
        throughput=found.throughput,
        seconds=time.perf_counter() - started,
        provenance=capture(
            layout, LoadedBase.device_name, LoadedBase.threads, config.runtime.deterministic
        ),
    )


def with_room(scores: Callable[[int], T], batch_size: int) -> tuple[T, int]:
    """What `scores` gives with a batch size, and the batch size: half of it where memory runs out.

    Raises:
        DeviceError: half of it is too much too, or there is no half.
    """
    size = batch_size
    while True:
        try:
            return scores(size), size
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
            if size == 1 or size < batch_size:
                raise DeviceError(_no_room(batch_size, size, reason)) from error
        # Only now is all given back that the failed batch held.
        give_back_memory()
        size //= 2
        print(f"memory ran out ({reason}): scored again with batches of {size}", flush=True)


def _no_room(asked: int, tried: int, reason: str) -> str:
    remedy = f"Set evaluate.batch_size={tried // 2}" if tried > 1 else "Leave the longest rows out"
    return (
        f"evaluate.batch_size={asked}: memory runs out, with batches of {tried} ({reason}). "
        f"{remedy}, or free memory for this."
    )
