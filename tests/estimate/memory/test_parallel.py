"""What vLLM does with several cards: shares of every layer, stages of layers, and what can be cut at all."""

from __future__ import annotations

import pytest

import fitcheck
from fitcheck import catalog
from fitcheck.estimate.parallel import can_share, stages_of
from fitcheck.types import Fit, Machine, Request, Shape, Verdict

MODELS = {model.id: model for model in catalog.load().models}


def shape_of(name: str) -> Shape:
    shape = MODELS[name].shape
    assert shape is not None
    return shape


def on(hardware: str | Machine, name: str, quant: str = "BF16", **asked: int) -> Fit:
    machine = fitcheck.pretend(hardware) if isinstance(hardware, str) else hardware
    return fitcheck.estimate(MODELS[name], machine, Request(runtime="vllm", quant=quant, **asked))  # type: ignore[arg-type]


def of(fit: Fit, term: str) -> list[int]:
    return [each.bytes for each in fit.terms if each.name == term]


@pytest.mark.parametrize(
    ("layers", "stages", "ends"),
    [(80, 2, (40, 80)), (80, 3, (27, 54, 80)), (61, 4, (15, 30, 46, 61)), (33, 2, (17, 33)), (5, 5, (1, 2, 3, 4, 5))],
)
def test_layers_go_on_stages_as_vllm_cuts_them(layers: int, stages: int, ends: tuple[int, ...]) -> None:
    found = stages_of(layers, stages)
    assert found[-1] == layers and len(found) == stages
    assert found == ends
    sizes = [last - first for first, last in zip((0, *found), found, strict=False)]
    assert max(sizes) - min(sizes) <= 1 and sizes[-1] == min(sizes)  # the last one has the output


def test_heads_and_widths_tell_how_many_cards_can_share_a_layer() -> None:
    few_heads = shape_of("qwen2.5-0.5b-instruct")  # 14 query heads, 2 of K and V
    assert can_share(few_heads, 1) and can_share(few_heads, 2)
    assert not can_share(few_heads, 4) and not can_share(few_heads, 3)
    assert can_share(shape_of("llama-3.3-70b"), 8)


def test_two_cards_that_share_every_layer_halve_weights_and_cache() -> None:
    fit = on("2x RTX 3090", "qwen2.5-14b-instruct")
    assert fit.placement.flags[-2:] == ("--tensor-parallel-size", "2")
    assert [(use.first_layer, use.last_layer) for use in fit.placement.devices] == [(0, 48), (0, 48)]
    whole = on("RTX PRO 6000", "qwen2.5-14b-instruct")
    for term in ("weights", "kv_cache"):
        shares = of(fit, term)
        assert len(shares) == 2 and sum(shares) == pytest.approx(sum(of(whole, term)), abs=4)


def test_cards_that_share_layers_are_faster_than_one_and_stages_are_not() -> None:
    one, both = on("RTX 3090", "qwen3-8b"), on("2x RTX 3090", "qwen2.5-14b-instruct")
    assert one.speed is not None and both.speed is not None
    read = both.speed.bytes_per_token / one.speed.bytes_per_token
    assert both.speed.decode_per_s.likely * read > 1.5 * one.speed.decode_per_s.likely
    stages = on("3x RTX 3060", "phi-3-medium-4k-instruct", context_tokens=2048)  # 40 heads: not for three
    assert stages.verdict is not Verdict.NO and stages.speed is not None
    assert stages.placement.flags[-2:] == ("--pipeline-parallel-size", "3")
    bandwidth = stages.speed.bandwidth_per_s
    assert stages.speed.decode_per_s.likely < bandwidth / stages.speed.bytes_per_token


def test_a_latent_cache_and_fewer_heads_than_cards_are_kept_by_every_card() -> None:
    latent = on("4x H100", "deepseek-v2-lite", context_tokens=32_768, margin_bytes=0)
    assert len(latent.placement.devices) == 1
    shared = on("8x RTX 3060", "deepseek-v2-lite", context_tokens=32_768)
    assert shared.verdict is not Verdict.NO and len(shared.placement.devices) > 1
    assert set(of(shared, "kv_cache")) == set(of(latent, "kv_cache"))  # all of it on each
    two_heads = on("8x RTX 3060", "glm-4-32b-0414")  # 48 query heads, 2 of K and V
    group = two_heads.placement.flags[two_heads.placement.flags.index("--tensor-parallel-size") + 1]
    assert int(group) > 2
    assert of(two_heads, "kv_cache")[0] * 2 == of(on("H200", "glm-4-32b-0414"), "kv_cache")[0]


@pytest.mark.parametrize("name", ["qwen3-32b", "llama-3.3-70b", "phi-3-medium-4k-instruct", "qwen3-30b-a3b"])
def test_one_more_card_never_turns_yes_into_no(name: str) -> None:
    verdicts = [on(f"{count}x RTX 3090", name, context_tokens=4096).verdict for count in range(1, 9)]
    fits = [verdict is not Verdict.NO for verdict in verdicts]
    assert fits == sorted(fits)
