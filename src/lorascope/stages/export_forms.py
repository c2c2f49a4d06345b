"""The forms of an export: what each writes, checks, and says of how it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.adapters.exportable import ADAPTER, MERGED, require_exportable
from lorascope.adapters.kinds import kind_name, unmerged
from lorascope.comparing.findings import compare
from lorascope.config import APART, Config, DataKind, ModelKind, Precision
from lorascope.data.questions import asked_row
from lorascope.data.rows import read_rows
from lorascope.data.templates import make_template
from lorascope.errors import ConfigError, DataError, VerificationError
from lorascope.files.exported import CARD, marked
from lorascope.files.layout import ADAPTER_FILES, Layout
from lorascope.files.replacing import replaced_folder, write_atomically
from lorascope.machine.libraries import import_uncollected
from lorascope.records import ItemResult, Study, TrialRecord
from lorascope.reporting import export_text, serving_note
from lorascope.reporting.model_card import Exported, model_card
from lorascope.study.asked_export import Asked
from lorascope.study.intact import require_base, require_data
from lorascope.study.intact_scores import scored_items
from lorascope.study.named_trial import Named

QUESTION = "{question}"
TRIED_PROMPTS = 200
"""Rows whose prompts say whether a tokenizer joins their end with what follows."""
PLACE = "FOLDER"
"""What a card calls the folder that it lies in, which may be anywhere."""


@dataclass(frozen=True)
class Written:
    """What one form found out while it was written."""

    checked: list[str]
    load: list[str]
    """Lines of Markdown."""
    served: Callable[[str], list[str]]
    """How a server loads it from a folder of that name."""


@dataclass(frozen=True)
class ExportJob:
    """One export: where it goes, what of, and all that is read for it."""

    asked: Asked
    trial: TrialRecord
    study: Study
    named: Named
    layout: Layout

    @property
    def config(self) -> Config:
        return self.named.config

    @property
    def adapter(self) -> Path:
        assert self.named.adapter is not None
        return self.named.adapter

    @property
    def kind(self) -> str:
        return kind_name(self.trial.settings)

    @property
    def base(self) -> Path:
        return self.layout.base(self.config.model.name)

    @property
    def stored(self) -> Path:
        return self.layout.quantized(self.config.model.name, self.config.quant.name)

    @property
    def is_adapter(self) -> bool:
        return self.asked.form == ADAPTER

    @property
    def classes(self) -> int | None:
        return self.config.model.classes

    @property
    def precision(self) -> Precision:
        """An adapter's is float32; of merged weights the one asked for, else the 16 bits that the
        base has in its mode beside what is quantized, and bfloat16 where it has 32."""
        if self.is_adapter:
            return Precision.float32
        if self.asked.precision is not None:
            return self.asked.precision
        stored = _json(self.stored / "config.json")
        own = stored.get("dtype") or stored.get("torch_dtype")
        return Precision(own) if own in ("float16", "bfloat16") else Precision.bfloat16

    @property
    def what(self) -> str:
        """What the mark in the card calls it: with the base and the licence that its files name."""
        told = [self.trial.identity[:16], self.asked.form, self.precision.value]
        if self.is_on_hub:
            revision = self._revision()
            told.append(f"base={self._base_name()}{f'@{revision}' if revision else ''}")
        if self.asked.license is not None:
            told.append(f"license={self.asked.license}")
        return " ".join(told)

    def require_form(self) -> None:
        named = _json(self.adapter / ADAPTER_FILES[0])["peft_type"]
        require_exportable(self.asked.form, self.kind, str(named), self.classes is not None)

    def write(self) -> None:
        """All of it, or nothing."""
        import_uncollected("lorascope.scoring.evaluation")
        converter = self._converter()
        require_base(self.config, self.layout)
        require_data(self.config, self.layout)
        prompt = self._prompt()
        with replaced_folder(self.asked.to) as folder:
            if converter is not None:
                written = self._gguf(folder, converter)
            else:
                written = self._adapter(folder) if self.is_adapter else self._merged(folder)
            qat = self._train().get("qat")
            if qat is not None:
                written.checked.append(export_text.trained_for_a_grid(qat))
            card = model_card(
                self.trial, self.study, compare(self.study), self._facts(written, prompt)
            )
            write_atomically(folder / CARD, marked(card, self.what, folder).encode())
        for sentence in (*written.checked, *written.served(str(self.asked.to))):
            print(sentence)
        print(f"wrote {self.asked.to}")

    def _train(self) -> Mapping[str, Any]:
        train = self.trial.settings.get("train")
        return train if isinstance(train, Mapping) else {}

    def _adapter(self, folder: Path) -> Written:
        from lorascope.scoring.exported_adapter import check_adapter, close_enough, write_adapter

        write_adapter(folder, self.adapter, self.base, self._hub_base(), self._revision())
        check = check_adapter(folder, self.config, self.layout, self.adapter, self._scored())
        checked = list(export_text.adapter_checked(check))
        if not close_enough(check, self.config.merge):
            raise VerificationError(
                f"{self.trial.trial}: {' '.join(checked)} That is more than merge.max_logit_"
                "difference and merge.max_loss_gap_nats allow, so nothing was written: evaluate "
                "the trial again, or take form=merged."
            )
        stored, own = _json(self.stored / "config.json"), _shown(self.stored, self.layout)
        load = export_text.load_adapter_code(self._loaded_base(stored, own))
        saved, served_base = _json(folder / ADAPTER_FILES[0]), self._served_base(stored, own)
        return Written(
            checked,
            load,
            lambda place: serving_note.adapter_note(
                saved,
                self._from(place, served_base),
                self.trial.trial,
                place,
                stored.get("quantization_config", {}).get("quant_method"),
                unmerged(self.kind) is None,
                self._own_code(),
            ),
        )

    def _from(self, place: str, base: str) -> str:
        """The base beside an adapter in `place`: a folder of the study is named as the adapter is,
        from the root of the disk or of the study."""
        own = self.layout.root / base
        return str(own) if Path(place).is_absolute() and own.is_dir() else base

    def _loaded_base(self, stored: Mapping[str, Any], own: str) -> export_text.LoadedBase:
        result = self.trial.result
        return export_text.LoadedBase(
            name=self._base_name(),
            on_hub=self.is_on_hub,
            revision=self._revision(),
            stored=stored,
            own=own,
            compute=None if result is None else result.compute_dtype,
            classes=self.classes,
            own_code=self._own_code(),
        )

    def _own_code(self) -> bool:
        from lorascope.bases.folder import runs_own_code

        return runs_own_code(self.base)

    def _converter(self) -> Path | None:
        """llama.cpp's, where it is asked for: looked for before anything is read."""
        if self.is_adapter or self.asked.form == MERGED:
            return None
        from lorascope.scoring.gguf_file import find_converter

        return find_converter(self.asked.converter)

    def _served_base(self, stored: Mapping[str, Any], own: str) -> str:
        """What a server loads the adapter's base from: the folder of the study, where it is
        quantized or on no hub."""
        return own if "quantization_config" in stored else (self._hub_base() or own)

    def _merged(self, folder: Path) -> Written:
        from lorascope.scoring.exported_merged import export_merged

        record = export_merged(folder, self.config, self.layout, self.trial, self.precision)
        return Written(
            list(export_text.merged_checked(record)),
            export_text.load_merged_code(self.precision.value, self.classes, self._own_code()),
            lambda place: serving_note.merged_note(
                place, self.classes is not None, self._own_code()
            ),
        )

    def _gguf(self, folder: Path, converter: Path) -> Written:
        from lorascope.scoring.exported_merged import export_gguf

        record, check = export_gguf(
            folder, self.config, self.layout, self.trial, self.precision, converter
        )
        return Written(
            [*export_text.merged_checked(record), *export_text.gguf_checked(check)],
            # The command that serves it loads it.
            [],
            lambda place: serving_note.gguf_note(f"{place}/{check.file}"),
        )

    def _facts(self, written: Written, prompt: str | None) -> Exported:
        data = self.config.data
        return Exported(
            form=self.asked.form,
            base=self._base_name(),
            base_revision=self._revision(),
            dataset=data.repository if data.kind is DataKind.hub else None,
            license=self.asked.license,
            commit=self.trial.provenance.git_commit,
            checked=tuple(written.checked),
            load=tuple(written.load),
            served=tuple(written.served(PLACE)),
            prompt=prompt,
        )

    def _hub_base(self) -> str | None:
        model = self.config.model
        return self.asked.base or (model.repository if model.kind is ModelKind.hub else None)

    @property
    def is_on_hub(self) -> bool:
        """Whether the base has a name there."""
        return self._hub_base() is not None

    def _base_name(self) -> str:
        return self._hub_base() or self.config.model.name

    def _revision(self) -> str | None:
        """Of the base on the hub, where that is where the study has it from."""
        model = self.config.model
        return model.revision if self._hub_base() == model.repository else None

    def _scored(self) -> Sequence[ItemResult] | None:
        """The trial's validation items, apart on its base."""
        own = self.study.scores_of(self.trial).get(APART)
        if own is None:
            return None
        return scored_items(own, self.layout.evaluations(own.quant) / own.name)["validation"]

    def _prompt(self) -> str | None:
        """A question as training wrote those of the rows; None of data that asks none, or that was
        prepared otherwise since."""
        from lorascope.data.tokenization import load_tokenizer
        from lorascope.scoring.lm_eval_model import usual_blank

        if self.named.data_changed:
            return None
        data, tokenizer = self.config.data, load_tokenizer(self.stored)
        try:
            template = make_template(data.template, data.system, tokenizer, data.date)
            prompt = asked_row(QUESTION, data, template).prompt
        except (ConfigError, DataError):
            return None
        rows = read_rows(self.layout.data(self.config.model.name, data.name) / "validation.jsonl")
        return prompt + usual_blank(tokenizer, rows[:TRIED_PROMPTS])


def _json(path: Path) -> dict[str, Any]:
    from lorascope.bases.folder import read_json

    return read_json(path)


def _shown(folder: Path, layout: Layout) -> str:
    """A folder of the study, as whoever stands in the study names it."""
    return folder.relative_to(layout.root).as_posix()
