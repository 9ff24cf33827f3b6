"""The encoder of images in a ``config.json`` is that of the catalog's model of the same name."""

from __future__ import annotations

from typing import Any

import pytest

from fitcheck import catalog
from fitcheck.catalog.config_encoders import encoders_of

MODELS = {model.id: model for model in catalog.load().models}
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304}
QWEN3 = {**SIGLIP, "depth": 27, "num_heads": 16, "patch_size": 16, "num_position_embeddings": 2304}
QWEN25 = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14}
CONFIGS: dict[str, dict[str, Any]] = {
    "gemma-3-27b": {
        "model_type": "gemma3",
        "mm_tokens_per_image": 256,
        "vision_config": {
            **SIGLIP,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "patch_size": 14,
            "image_size": 896,
        },
    },
    "qwen2-vl-7b": {
        "model_type": "qwen2_vl",
        "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "patch_size": 14},
    },
    "qwen2.5-vl-7b": {
        "model_type": "qwen2_5_vl",
        "vision_config": {**QWEN25, "spatial_merge_size": 2, "fullatt_block_indexes": [7, 15, 23, 31]},
    },
    "qwen3-vl-8b": {
        "model_type": "qwen3_vl",
        "vision_config": {**QWEN3, "spatial_merge_size": 2, "deepstack_visual_indexes": [8, 16, 24]},
    },
    "qwen3.5-27b": {"model_type": "qwen3_5", "vision_config": {**QWEN3, "deepstack_visual_indexes": []}},
    "mistral-small-3.1-24b": {
        "model_type": "mistral3",
        "spatial_merge_size": 2,
        "vision_config": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
            "image_size": 1540,
        },
    },
    "kimi-vl-a3b": {
        "model_type": "kimi_vl",
        "vision_config": {**SIGLIP, "num_hidden_layers": 27, "num_attention_heads": 16, "patch_size": 14},
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_configuration_tells_the_encoder(name: str) -> None:
    model = MODELS[name]
    assert model.shape is not None
    assert encoders_of(CONFIGS[name], model.shape.hidden_size) == model.encoders


@pytest.mark.parametrize("key", ["patch_size", "depth", "num_heads"])
def test_a_tower_with_a_size_left_out_gives_no_encoder(key: str) -> None:
    config = CONFIGS["qwen2.5-vl-7b"]
    vision = {name: value for name, value in config["vision_config"].items() if name != key}
    assert encoders_of({**config, "vision_config": vision}, 3584) == ()


@pytest.mark.parametrize("vision", [None, [], {"depth": 1 << 40}, {**QWEN25, "depth": 100_000}])
def test_a_tower_that_cannot_be_right_gives_no_encoder(vision: Any) -> None:
    assert encoders_of({"model_type": "qwen2_5_vl", "vision_config": vision}, 3584) == ()


def test_an_unknown_model_type_gives_no_encoder() -> None:
    assert encoders_of({"model_type": "newest", "vision_config": QWEN25}, 3584) == ()
