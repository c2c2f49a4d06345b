"""Peaks of whole models, continued from traces of a few of their layers.

A model that cannot be traced raises ModelError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from peft import PeftModel
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from lorascope.adapters.kinds import kind_of
from lorascope.bases.transformers_config import in_short
from lorascope.counting.parameters import FLOAT32_BYTES
from lorascope.errors import LorascopeError, ModelError
from lorascope.planning.arithmetic import (
    Excerpts,
    affine_through,
    excerpts,
    extrapolated,
    layer_period,
)
from lorascope.planning.layer_kinds import layer_kinds
from lorascope.planning.marks import START
from lorascope.planning.shards import division_of
from lorascope.planning.subject import PlanSubject
from lorascope.planning.trace import (
    SIXTEEN_BITS,
    Trace,
    trace_evaluation,
    trace_inference,
    trace_training,
)

MASKED_KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers with equal tensors, which differ in what their attention may see. Where nothing
is padded some need no mask for that, and then save less."""


def training_trace(subject: PlanSubject) -> Trace:
    """The step of the whole model: two shallow traces continued, or the model traced as it is. Of
    a base that several devices divide, the step of one of them."""
    trace, division = _undivided_trace(subject), division_of(subject)
    spared = {"spared": division.spared, "gathered": division.weights}
    segments = division.segments(trace.segments)
    return replace(trace, segments=segments, parts={**trace.parts, **spared})


def _undivided_trace(subject: PlanSubject) -> Trace:
    layers, kinds = _layers(subject)
    traced = _excerpts(subject, in_training=True)
    with _readable_errors(subject):
        if traced is None:
            return trace_training(subject, None, layer_period(kinds, layers))
        first = trace_training(subject, traced.first, traced.period)
        second = trace_training(subject, traced.second, traced.period)
    depths = len(traced.first), len(traced.second)
    return Trace(
        extrapolated(first.segments, second.segments, *depths, layers),
        extrapolated(first.parts, second.parts, *depths, layers),
        _layer_bytes(first, second, depths[1] - depths[0]),
    )


def _layer_bytes(first: Trace, second: Trace, layers: int) -> dict[str, float]:
    values = {name: second.segments[name] - first.segments[name] for name in first.segments}
    for part in ("activations", "gradients"):
        values[part] = second.parts[part] - first.parts[part]
    return {name: value / layers for name, value in values.items()}


def segments_like(subject: PlanSubject, known: Trace, samples: int) -> dict[str, int]:
    """The step's segments, from one shallow trace: what a layer adds is `known` with another number
    of samples, and only what it saves of them changes with that.

    Args:
        samples: of the `known` step.
    """
    traced = _excerpts(subject, in_training=True)
    slopes, spec = known.layer_bytes, subject.spec
    if traced is None or not slopes:
        return training_trace(subject).segments
    division = division_of(subject)
    with _readable_errors(subject):
        first = trace_training(subject, traced.first, traced.period)
    # Where autocast computes DoRA in 16 bits, copies of the adapter wait for the backward pass,
    # whatever the samples; a checkpointed layer makes them again, and our own functions always.
    decomposed = any(kind_of(own).reads_weights(own) for own in spec.pack)
    made_again = subject.training.gradient_checkpointing or subject.training.qat is not None
    kept = decomposed and not made_again
    width = spec.compute.itemsize if kept and spec.compute in SIXTEEN_BITS else 0
    copies = slopes["gradients"] * width / FLOAT32_BYTES
    grown = (slopes["activations"] - copies) * (subject.train.samples / samples - 1)
    added = _layers(subject)[0] - len(traced.first)
    whole = {
        name: peak + round(added * (slopes[name] + (grown if _saved(name, slopes) else 0)))
        for name, peak in first.segments.items()
        if name in slopes
    }
    return division.segments(whole)


def _saved(segment: str, slopes: dict[str, float]) -> bool:
    """Whether a segment peaks while all layers' activations are there. On the way back they give
    way to gradients: the peak between first and last layer lies at either end."""
    segment = segment.removesuffix(START)
    if segment == "middle_backward":
        start, end = (abs(slopes[segment] - slopes[name]) for name in ("last_backward", "clip"))
        return start <= end
    return segment in ("forward", "head", "head_backward", "last_backward")


def evaluation_bytes(subject: PlanSubject) -> int:
    """The peak of the whole model's evaluation. Of a layer nothing outlives its forward pass there,
    so that one shallow trace is enough, with what other layers hold all the time."""
    traced = _excerpts(subject, in_training=False)
    with _readable_errors(subject):
        if traced is None:
            whole = trace_evaluation(subject, None, subject.evaluation)
            return division_of(subject).evaluated(whole)
        peak = trace_evaluation(subject, traced.first, subject.evaluation)
        first, second = (
            (len(kept), trace_evaluation(subject, kept, ()))
            for kept in (traced.first, traced.second)
        )
    _, slope = affine_through(first, second)
    whole = peak + round(slope * (_layers(subject)[0] - len(traced.first)))
    return division_of(subject).evaluated(whole)


def inference_bytes(
    subject: PlanSubject, run: Callable[[PeftModel], None], layers_keep: bool
) -> int:
    """The peak of the whole model while `run` uses it without gradients: two shallow traces
    continued.

    Args:
        layers_keep: something of each layer outlives its forward pass, such as keys and values.
    """
    traced = _excerpts(subject, in_training=layers_keep)
    with _readable_errors(subject):
        if traced is None:
            return trace_inference(subject, None, run)
        first, second = (
            (len(kept), trace_inference(subject, kept, run))
            for kept in (traced.first, traced.second)
        )
    start, slope = affine_through(first, second)
    return round(start + slope * _layers(subject)[0])


def _layers(subject: PlanSubject) -> tuple[int, list[str]]:
    """Number of layers, and the kind of each where there are several."""
    return layer_kinds(subject.spec.config)


def _excerpts(subject: PlanSubject, in_training: bool) -> Excerpts | None:
    layers, kinds = _layers(subject)
    masks_differ = in_training and (subject.device != "cpu" or not subject.train.padded)
    alike = len(set(kinds)) <= 1 or (not masks_differ and set(kinds) <= MASKED_KINDS)
    return excerpts(kinds, layers, alike)


@contextmanager
def _readable_errors(subject: PlanSubject) -> Iterator[None]:
    try:
        yield
    except LorascopeError:
        raise
    except Exception as error:
        needs_data = isinstance(error, (DataDependentOutputException, DynamicOutputShapeException))
        raise ModelError(
            f"config.json: model_type={subject.spec.config.get('model_type')!r} cannot be traced"
            f"{' without data' if needs_data else ''} ({in_short(error)}): its memory can only "
            "be measured."
        ) from error
