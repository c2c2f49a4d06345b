"""The figure of a calibration: what is drawn, and what its words say, from the numbers."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lorascope.comparing.findings import compare
from lorascope.records import CalibrationRecord, LayerRange, ServedForm
from lorascope.reporting.figures.chart import svg
from lorascope.reporting.figures.ranges import (
    draw_ranges,
    draw_served_ranges,
    input_spans,
    range_words,
    served_range_words,
    weight_spans,
)
from lorascope.reporting.figures.style import style
from tests.study_factory import Trial, make_study

QUERY = LayerRange(
    name="model.layers.0.self_attn.q_proj", values=1000, observed_min=-20.0, observed_max=1000.0,
    scale=4.0, zero_point=-123, clipped_share=0.002, mean_squared_error=4.0, mean_square=400.0,
    weight_min=-0.5, weight_max=0.4, stored_weight_min=-0.498, stored_weight_max=0.402,
)  # fmt: skip
DOWN = replace(
    QUERY, name="model.layers.0.mlp.down_proj", values=3000, observed_min=-1.0, observed_max=1.0,
    scale=2 / 255, zero_point=0, clipped_share=0.0, mean_squared_error=0.01, mean_square=0.25,
)  # fmt: skip
RECORD = CalibrationRecord("percentile", 99.9, 64, 1280, "digest", [QUERY, DOWN])


def test_spans_are_ranges_before_and_what_codes_cover_after() -> None:
    query, down = input_spans(RECORD)
    assert (query.kind, query.before, query.after) == ("q_proj", (-20.0, 1000.0), (-20.0, 1000.0))
    assert down.after == pytest.approx((-128 * 2 / 255, 127 * 2 / 255))
    assert weight_spans(RECORD)[0].after == (-0.498, 0.402)


def test_words_say_the_widest_layer_the_worst_one_and_the_clipped_share() -> None:
    _, description, caption = range_words(RECORD)
    assert "2 layers. The widest inputs, of model.layers.0.self_attn.q_proj, span 1.02e" in (
        description
    )
    # sqrt(0.01 / 0.25)
    assert "most in model.layers.0.mlp.down_proj: by 20.0 %" in description
    assert "64 rows of the train split (1,280 tokens)" in caption
    # 0.002 of 1,000 among 4,000 inputs
    assert "observer percentile of 99.9 per cent: 0.0500 % of all inputs" in caption


def test_the_figure_names_each_kind_of_layer_and_is_the_same_twice() -> None:
    with style():
        drawn, again = (svg(draw_ranges(RECORD)) for _ in range(2))
    assert drawn == again
    assert re.findall(r"after, (\w+)", drawn.decode()) == ["q_proj", "down_proj"]


def test_a_report_shows_the_first_form_that_was_calibrated_and_else_says_so() -> None:
    study = make_study([Trial("fp16")])
    findings = compare(study)
    assert served_range_words(study, findings) is None
    with style():
        assert "No served form was calibrated." in svg(draw_served_ranges(study, findings)).decode()
    form = ServedForm("w8a8_static", {}, 1000, 1000, 8.1, "digest", RECORD)
    last = replace(study.evaluations[-1], name="fp16-r0008@w8a8_static", served=form)
    served = replace(study, evaluations=[*study.evaluations, last])
    words = served_range_words(served, findings)
    assert words is not None
    assert words[0].endswith("before and after 8 bits: fp16-r0008@w8a8_static")
    with style():
        assert svg(draw_served_ranges(served, findings)) == svg(draw_ranges(RECORD))
