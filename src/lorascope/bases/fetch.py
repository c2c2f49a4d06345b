"""The sources of bases: pre-training here, the hub at a pinned revision, a local folder, or a trial
that is merged."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)

from lorascope.adapters.class_head import head_parameters
from lorascope.adapters.decoder import decoder_shape
from lorascope.adapters.layers import (
    linear_shapes,
    model_ends,
    model_parts,
    owner_shapes,
    unadapted_weights,
    vector_shapes,
)
from lorascope.bases.folder import (
    TOKENIZER_PATTERNS,
    base_label,
    check_folder,
    copy_files,
    runs_own_code,
)
from lorascope.bases.heads import auto_class, gives_classes
from lorascope.bases.source_folder import source_folder
from lorascope.bases.tiny.pretraining import (
    OnStep,
    PretrainSettings,
    build_tiny_model,
    pretrain_tiny,
)
from lorascope.bases.transformers_config import context_tokens, first_position, in_short
from lorascope.bases.weights import require_fitting_weights, require_sound_values
from lorascope.config import ModelConfig, ModelKind
from lorascope.errors import ModelError
from lorascope.files.layout import Layout
from lorascope.machine.libraries import quiet_libraries
from lorascope.records import (
    DecoderShape,
    LinearShape,
    ModelEnds,
    ModelParts,
    OwnerShape,
    UnadaptedWeights,
    VectorShape,
)

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.py", *TOKENIZER_PATTERNS)
"""Patterns of the files that are copied or fetched for a base."""


def fetch_base(
    model: ModelConfig,
    folder: Path,
    root: Path,
    progress: OnStep | None = None,
    merged: Path | None = None,
) -> dict[str, float] | None:
    """Put the base's files into `folder`. Returns what pre-training reached, where it was done
    here; ModelError where the source lacks something, or cannot be reached.

    Args:
        merged: for kind=trial, the folder of its merged model.
    """
    quiet_libraries()
    if model.classes is not None:
        return _with_class_head(model, folder, root, progress, merged)
    if model.kind is ModelKind.tiny:
        settings = PretrainSettings(steps=model.pretrain_steps, seed=model.pretrain_seed)
        result = pretrain_tiny(settings, folder, progress)
        return {name: float(value) for name, value in asdict(result).items()}
    source = merged or _download_or_local(model, root)
    require_sound_base(source, model)
    copy_files(source, folder, MODEL_FILES)
    return None


def _with_class_head(
    model: ModelConfig, folder: Path, root: Path, progress: OnStep | None, merged: Path | None
) -> dict[str, float] | None:
    from lorascope.bases.class_base import write_class_base

    if model.kind is ModelKind.tiny:
        with TemporaryDirectory(dir=folder) as scratch:
            plain = replace(model, classes=None, dropout=None)
            pretraining = fetch_base(plain, Path(scratch), root, progress)
            write_class_base(Path(scratch), folder, model)
        return pretraining
    write_class_base(merged or _download_or_local(model, root), folder, model)
    return None


def _download_or_local(model: ModelConfig, root: Path) -> Path:
    source = source_folder(model, Layout(root))
    return _download(model) if source is None else source


def _download(model: ModelConfig) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                str(model.repository), revision=model.revision, allow_patterns=list(MODEL_FILES)
            )
        )
    except Exception as error:
        raise ModelError(
            f"model.repository={model.repository!r}: cannot be fetched "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). With a network, warm the "
            f"cache once: `hf download {model.repository} --revision {model.revision}` (after "
            "`hf auth login` where it is gated); then it works offline, with HF_HUB_OFFLINE=1."
        ) from error


@dataclass(frozen=True)
class BaseDescription:
    """A base as its config describes it."""

    architecture: str
    parameters: int
    """Tied parameters count once."""
    vocabulary: int
    """Number of rows of the embedding."""
    context_tokens: int
    tied_head: bool
    linear_shapes: list[LinearShape]
    unadapted: list[UnadaptedWeights]
    vectors: list[VectorShape]
    decoder: DecoderShape | None
    owners: list[OwnerShape]
    ends: ModelEnds | None
    class_head: int

    @property
    def parts(self) -> ModelParts:
        """The layers that a method can choose among."""
        beside = self.decoder, self.owners, self.ends, self.class_head
        return ModelParts(self.linear_shapes, self.vectors, *beside)


def require_sound_base(folder: Path, model: ModelConfig, values: bool = True) -> None:
    """Judge the files of a base, its tensors and, with `values`, every value in them: ModelError
    where something is lacking, does not fit config.json or is not finite."""
    check_folder(folder, model)
    label = base_label(model)
    empty, config = meta_model(folder, label)
    require_fitting_weights(folder, label, empty, config)
    if values:
        require_sound_values(folder, label, empty)


def describe(folder: Path, label: str | None = None) -> BaseDescription:
    """Describe a base, named `label` in errors, from its config alone; no weights are read.
    ModelError where transformers cannot build a model from it, or the tokenizer cannot be loaded or
    ends its texts with a token that the model does not have."""
    label = label or folder.name
    model, config = meta_model(folder, label)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    _require_tokenizer(folder, label, vocabulary, writes=not gives_classes(config))
    text_config = config.get_text_config()
    return BaseDescription(
        architecture=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=vocabulary,
        context_tokens=context_tokens(text_config) - first_position(model),
        tied_head=bool(getattr(text_config, "tie_word_embeddings", False)),
        linear_shapes=linear_shapes(model),
        unadapted=unadapted_weights(model),
        vectors=vector_shapes(model),
        decoder=decoder_shape(model),
        owners=owner_shapes(model),
        ends=model_ends(model),
        class_head=head_parameters(model),
    )


def meta_model(folder: Path, label: str) -> tuple[PreTrainedModel, PretrainedConfig]:
    """The model that config.json describes, without weights, and the config; else ModelError."""
    own_code = runs_own_code(folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=own_code)
        with torch.device("meta"):
            model = auto_class(config).from_config(config, trust_remote_code=own_code)
        # Tied parameters are one tensor, which parameters() gives once.
        model.tie_weights()
    except Exception as error:
        # Architectures fail in many ways on values that they do not expect.
        raise ModelError(
            f"{label}: transformers cannot build a model from its config.json ({in_short(error)}). "
            "Take the model's own config.json; an architecture that this release of transformers "
            "does not know can only be used with code of its own (model.trust_remote_code)."
        ) from error
    return model, config


def _require_tokenizer(folder: Path, label: str, vocabulary: int, writes: bool) -> None:
    """Refuse a tokenizer that cannot be loaded, or that has no token to end what a model writes."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=runs_own_code(folder))
    except Exception as error:
        raise ModelError(
            f"{label}: its tokenizer cannot be loaded ({in_short(error)}). Save it there again "
            "with tokenizer.save_pretrained."
        ) from error
    end = tokenizer.eos_token_id
    if not writes:
        return
    if end is None:
        raise ModelError(
            f"{label}: the tokenizer has no end-of-text token, so no answer could end. "
            "Set eos_token in tokenizer_config.json."
        )
    if end >= vocabulary:
        raise ModelError(
            f"{label}: the tokenizer's end-of-text token {tokenizer.eos_token!r} has the id {end}, "
            f"but the model knows {vocabulary} tokens. Set eos_token in tokenizer_config.json to "
            "one that it knows, or resize the embeddings and train them."
        )


def expected_shapes(
    model: ModelConfig, root: Path
) -> tuple[ModelParts, list[UnadaptedWeights]] | None:
    """The layers that a base will have, and the weights that no adapter reaches; None where
    only the hub knows. The folder that it is made from is judged too, except for its values."""
    if model.classes is not None:
        return None if model.kind is ModelKind.hub else _expected_class_base(model, root)
    source = source_folder(model, Layout(root))
    if source is not None:
        require_sound_base(source, model, values=False)
        described = describe(source, base_label(model))
        return described.parts, described.unadapted
    if model.kind is ModelKind.tiny:
        with torch.device("meta"):
            return model_parts(build_tiny_model()), []
    return None


def _expected_class_base(
    model: ModelConfig, root: Path
) -> tuple[ModelParts, list[UnadaptedWeights]]:
    from lorascope.bases.class_base import empty_class_base

    source = source_folder(model, Layout(root))
    if source is not None:
        check_folder(source, model)
    empty = empty_class_base(source, model)
    return model_parts(empty), unadapted_weights(empty)
