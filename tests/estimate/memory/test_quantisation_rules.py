"""The mixes of llama.cpp: which tensor takes which type, and what happens where its blocks do not fit."""

from __future__ import annotations

import pytest

from fitcheck import facts
from fitcheck.errors import FitcheckError
from fitcheck.estimate.quantize import store, type_of, weights
from fitcheck.estimate.stored import Bytes
from fitcheck.types import Attention, DenseFeedForward, Layer, MixtureOfExperts, Model, Shape, Tensor

TABLE = facts.load().quantizations


def model(hidden: int = 1024, layers: int = 32, experts: int = 0, tied: bool = False, kv_heads: int = 2) -> Model:
    ffn = MixtureOfExperts(experts, 2, 768) if experts else DenseFeedForward(3072)
    shape = Shape(
        hidden_size=hidden,
        vocab_size=32000,
        kinds=(Layer(Attention(8, kv_heads, 128), ffn),),
        layers="a" * layers,
        tie_word_embeddings=tied,
    )
    return Model("m", "m", shape, 0, 0, architecture="llama", context_tokens=8192)


def types(of: Model, quant: str, name: str) -> list[str]:
    named = type_of(of, quant, TABLE)
    return [named(layer, name) for layer in range(len(of.shape.layers if of.shape else ""))]


def test_q4_k_m_gives_more_bits_to_the_outer_eighths_and_every_third_layer_between() -> None:
    found = types(model(), "Q4_K_M", "ffn_down")
    assert [i for i, type_name in enumerate(found) if type_name == "q6_k"] == [
        *range(4), *range(6, 28, 3), *range(28, 32)
    ]  # fmt: skip
    assert set(types(model(), "Q4_K_M", "attn_q")) == {"q4_k"}


def test_eight_experts_keep_keys_and_values_in_8_bits() -> None:
    assert set(types(model(experts=8), "Q4_K_M", "attn_v")) == {"q8_0"}
    assert set(types(model(experts=16), "Q4_K_M", "attn_k")) == {"q4_k"}


def test_the_70b_class_raises_values_to_5_bits() -> None:
    assert "q4_k" not in types(model(layers=80), "Q4_K_M", "attn_v")
    assert "q4_k" in types(model(layers=81), "Q4_K_M", "attn_v")


def test_rows_that_do_not_fill_a_block_fall_back() -> None:
    assert set(types(model(hidden=1056), "Q4_K_M", "attn_q")) == {"q5_0"}
    assert set(types(model(hidden=1050), "Q4_K_M", "attn_q")) == {"f16"}


def test_a_tied_embedding_takes_the_output_type() -> None:
    tied, own = weights(model(tied=True), "Q4_K_M", TABLE), weights(model(), "Q4_K_M", TABLE)
    elements = 32000 * 1024
    assert tied.token_embedding == own.output == elements * 210 // 256
    assert own.token_embedding == elements * 144 // 256
    assert tied.output == 0


def test_mxfp4_files_hold_experts_in_4_bits_and_the_rest_in_8() -> None:
    found = weights(model(experts=16), "MXFP4_MOE", TABLE).kinds[0]
    assert found.experts == 3 * 16 * 768 * 1024 * 17 // 32


def test_gpus_pad_rows_and_tensors_more_than_files_do() -> None:
    stored = store(model(hidden=1056), "Q4_K_M", TABLE)
    mixer = stored.kinds[0].mixer
    assert mixer.file <= mixer.host < mixer.gpu
    assert mixer.gpu % 128 == 0


def test_better_mixes_are_never_smaller() -> None:
    ladder = ("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16", "F32")
    sizes = [weights(model(), quant, TABLE).total for quant in ladder]
    assert sizes == sorted(sizes)


def test_a_real_file_keeps_the_types_of_its_tensors() -> None:
    plain = model(layers=1)
    file = (
        Tensor("token_embd.weight", (1024, 32000), "Q8_0"),
        Tensor("blk.0.attn_q.weight", (1024, 1024), "Q4_K"),
        Tensor("blk.0.ffn_down.weight", (3072, 1024), "F16"),
        Tensor("blk.1.nextn.eh_proj.weight", (2048, 1024), "F16"),
        Tensor("output_norm.weight", (1024,), "F32"),
    )
    real = Model("f", "f", plain.shape, 0, 0, architecture="llama", tensors=file, file_quant="Q4_K_M")
    found = weights(real, "Q4_K_M", TABLE)
    assert found.token_embedding == 1024 * 32000 * 34 // 32
    assert found.kinds[0].mixer == 1024 * 1024 * 144 // 256
    assert found.kinds[0].ffn == 3072 * 1024 * 2
    assert found.unloaded == 2048 * 1024 * 2
    assert found.tied


def test_formats_outside_gguf_follow_their_definition() -> None:
    awq = weights(model(), "AWQ", TABLE)
    assert awq.token_embedding == 32000 * 1024 * 2  # stays 16 bits
    mlx = weights(model(), "MLX-4BIT", TABLE)
    assert mlx.token_embedding == 32000 * 1024 * 4.5 / 8


def test_an_unknown_quantisation_is_said_to_be_unknown() -> None:
    with pytest.raises(FitcheckError) as caught:
        weights(model(), "Q9_X", TABLE)
    assert caught.value.code == "unknown_quant"


def test_bytes_add_up_by_place() -> None:
    assert Bytes(1, 2, 3).plus(Bytes(10, 20, 30)) == Bytes(11, 22, 33)
