"""Feed hostile model files to the readers: ``python -m fitcheck.accuracy.fuzz_sources --count 1000000``.

A seeded mutator of GGUF headers, safetensors headers and configurations. Every input must end in a model or in one
printable line (FitcheckError), within a second and 256 MiB. What resolves is weighed too, so that no size that a reader
lets through breaks the arithmetic behind it.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fitcheck import facts
from fitcheck.catalog import config, installed, safetensors
from fitcheck.catalog.config_families import FAMILIES
from fitcheck.catalog.gguf import read_header
from fitcheck.catalog.gguf_architectures import ARCHITECTURES
from fitcheck.catalog.gguf_model import model_from_headers
from fitcheck.catalog.source import parse_json
from fitcheck.errors import FitcheckError
from fitcheck.estimate.fit import Estimator
from fitcheck.estimate.quantize import weights
from fitcheck.types import Accelerator, Backend, Cpu, Machine, Model, Pool, Request, Vendor

MAX_SECONDS = 1.0
MAX_BYTES = 256 << 20
ESTIMATED_SHARE = 0.02
_VRAM = Pool(24 << 30, 24 << 30, 24 << 30)
MACHINE = Machine(
    "linux",
    "x86_64",
    Cpu(name="cpu", physical_cores=8, logical_cpus=16),
    Pool(64 << 30, 64 << 30, 64 << 30),
    accelerators=(Accelerator(0, "card", Vendor.NVIDIA, _VRAM, backends=(Backend.CUDA,), compute_capability="8.9"),),
)
KINDS = ("gguf", "safetensors", "config")

_INTEGERS = (0, 1, 2, 3, 7, 255, 4096, 65535, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, 1 << 63, (1 << 64) - 1)
_TEXTS = ("", "\x1b[31m", "../../etc/passwd", "\x00", "a" * 5000, "llama", "mtp", "é\u202e", "-1", "blk.9999999999.x")


class MemorySource:
    """Bytes that may claim to be a much longer file; what lies behind them is zeros."""

    chunk_bytes = 1 << 18

    def __init__(self, data: bytes, size: int) -> None:
        self.name = "fuzz.gguf"
        self.size = size
        self._data = data

    def fetch(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``."""
        length = max(0, min(length, self.size - offset))
        part = self._data[offset : offset + length]
        return part + bytes(length - len(part))


# --------------------------------------------------------------------------------------------------------------------
# Inputs


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw


def _gguf(rng: random.Random) -> bytes:
    """A small valid header, of a random architecture, with some random sizes."""
    name = rng.choice(sorted(ARCHITECTURES))
    hidden, layers = rng.choice((64, 256)), rng.randint(1, 3)
    sizes = {
        "block_count": layers,
        "embedding_length": hidden,
        "feed_forward_length": 2 * hidden,
        "context_length": 4096,
    }
    sizes |= {"attention.head_count": 4, "attention.head_count_kv": 2, "vocab_size": 128}
    for key in _KEYS:
        if rng.random() < 0.8:
            sizes[key] = rng.choice((1, 2, 4, 64, 512)) if rng.random() < 0.98 else rng.choice((0, rng.getrandbits(32)))
    body = _text("general.architecture") + struct.pack("<I", 8) + _text(name)
    for key, value in sizes.items():
        body += _text(f"{name}.{key}") + struct.pack("<II", 4, value)
    body += _text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + _text("a") + _text("b") + _text("c")
    tensors: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (hidden, 128)),
        ("output_norm.weight", (hidden,)),
    ]
    for layer in range(layers):
        for part in rng.sample(_TENSORS, rng.randint(1, len(_TENSORS))):
            tensors.append(
                (f"blk.{layer}.{part}", rng.choice(((hidden, 128), (hidden, 128), (hidden,), (hidden, 64, 4))))
            )
    offset = 0
    for title, dims in tensors:
        body += _text(title) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, 0, offset)
        size = 4
        for length in dims:
            size *= length
        offset += size
    head = b"GGUF" + struct.pack("<IQQ", rng.choice((2, 3)), len(tensors), len(sizes) + 2) + body
    return head + bytes(-len(head) % 32)


_KEYS = """
    attention.key_length attention.value_length attention.sliding_window attention.sliding_window_pattern
    expert_count expert_used_count expert_feed_forward_length expert_shared_count attention.kv_lora_rank
    attention.q_lora_rank attention.key_length_mla attention.value_length_mla rope.dimension_count
    ssm.inner_size ssm.state_size ssm.time_step_rank ssm.group_count ssm.conv_kernel shortconv.l_cache
    full_attention_interval num_loops nextn_predict_layers attention.shared_kv_layers wkv.head_size pooling_type
    attention.indexer.head_count kda.head_dim
""".split()  # noqa: SIM905 - words read better in lines
_TENSORS = """
    attn_norm.weight attn_q.weight attn_k.weight attn_v.weight attn_output.weight attn_q_norm.weight
    attn_gate.weight attn_qkv.weight ffn_norm.weight ffn_up.weight ffn_down.weight ffn_gate.weight
    ffn_gate_inp.weight ffn_down_exps.weight ffn_up_exps.weight ssm_in.weight ssm_conv1d.weight ssm_x.weight
    ssm_beta.weight ssm_norm.weight shortconv.conv.weight attn_kv_a_mqa.weight attn_compressor_kv.weight
    time_mix_key.weight attn_sinks.weight ffn_down_shexp.weight exp_probs_b.bias ssm_conv1d_q.weight
""".split()  # noqa: SIM905 - words read better in lines


def _safetensors(rng: random.Random) -> bytes:
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for index in range(rng.randint(1, 6)):
        dtype = rng.choice(("BF16", "F32", "U32", "F8_E4M3"))
        shape = [rng.choice((1, 8, 64)) for _ in range(rng.randint(0, 3))]
        size = safetensors.DTYPE_BITS[dtype] // 8
        for dim in shape:
            size *= dim
        table[f"model.layers.{index}.w"] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    if rng.random() < 0.5:
        entry = rng.choice([value for value in table.values() if "shape" in value])
        key = rng.choice(sorted(entry))
        entry[key] = _value(rng, 2)
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text


def _config(rng: random.Random) -> bytes:
    table: dict[str, Any] = {"model_type": rng.choice(sorted(FAMILIES))}
    for key in rng.sample(_CONFIG_KEYS, rng.randint(0, 10)):
        table[key] = _value(rng, 3)
    if rng.random() < 0.2:
        table = {"model_type": "gemma3", "text_config": table, "vision_config": {}}
    if rng.random() < 0.1:
        table = {"weight_map": {"a": _value(rng, 1), "b": _value(rng, 1)}, "layers": [_value(rng, 3), table]}
    return json.dumps(table).encode()


_CONFIG_KEYS = """
    hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size
    layer_types sliding_window num_experts num_experts_per_tok moe_intermediate_size mlp_layer_types moe_layers
    kv_lora_rank q_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim mamba_d_state mamba_n_heads
    attn_layer_period linear_num_value_heads linear_value_head_dim conv_L_cache quantization_config quantization
    torch_dtype tie_word_embeddings architectures max_position_embeddings hybrid_override_pattern
    linear_attn_config num_loops num_kv_shared_layers use_double_wide_mlp global_head_dim per_layer_config
    block_auto_adjust_ff_dim text_config block_multiple_of decoder_sparse_step n_shared_experts
    hidden_size_per_layer_input altup_num_inputs
""".split()  # noqa: SIM905 - words read better in lines


def _value(rng: random.Random, depth: int) -> Any:
    """Any JSON value, of the kinds that break programs."""
    pick = rng.random()
    if pick < 0.35:
        return rng.choice((1, 2, 4, 8, 64, 128, *_INTEGERS))
    if pick < 0.45:
        return rng.choice((-1, -(1 << 63), 0.5, 1e308, float("inf"), float("nan"), True, False, None))
    if pick < 0.6 or depth == 0:
        return rng.choice((*_TEXTS, "full_attention", "sliding_attention", "linear_attention", "M-*E", "awq"))
    if pick < 0.85:
        return [_value(rng, depth - 1) for _ in range(rng.choice((0, 1, 3, 8)))]
    return {rng.choice((*_CONFIG_KEYS, *_TEXTS)): _value(rng, depth - 1) for _ in range(rng.randint(0, 3))}


MAKERS: dict[str, Callable[[random.Random], bytes]] = {"gguf": _gguf, "safetensors": _safetensors, "config": _config}


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Up to four changes: flipped bits, integers at the edges, pieces removed, doubled or cut off."""
    out = bytearray(data)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 4))):
        at = rng.randrange(len(out)) if out else 0
        how = rng.random()
        if how < 0.3 and out:
            out[at] ^= 1 << rng.randrange(8)
        elif how < 0.6:
            width = rng.choice((1, 2, 4, 8))
            out[at : at + width] = (rng.choice(_INTEGERS) & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        elif how < 0.7:
            del out[at : at + rng.choice((1, 4, 8, 64))]
        elif how < 0.85:
            out[at:at] = out[at : at + rng.choice((1, 8, 32, 200))]
        elif how < 0.95:
            out[at:at] = rng.choice(_TEXTS).encode()
        else:
            del out[at:]
    return bytes(out)


def nested(rng: random.Random) -> bytes:
    """JSON that is nothing but depth or width."""
    kind = rng.choice(("[", '{"a":', "[[],"))
    return (kind * rng.choice((10, 1000, 100_000))).encode()


# --------------------------------------------------------------------------------------------------------------------
# Targets


def _read_gguf(data: bytes, rng: random.Random) -> Model:
    size = len(data) + rng.choice((0, 1 << 20, 20 << 30, 20 << 30))
    return model_from_headers([read_header(MemorySource(data, size))], "fuzz.gguf")


def _read_safetensors(data: bytes, rng: random.Random) -> Model:
    size = len(data) + rng.choice((0, 1 << 20, 20 << 30, 20 << 30))
    file = safetensors.read_header(MemorySource(data, size))
    return config.model_from_config({"model_type": "unknown"}, "fuzz", config.weights_of([file]))


def _read_config(data: bytes, rng: random.Random) -> Model:
    raw = parse_json(data, "config.json", config.MAX_CONFIG_BYTES)
    if "weight_map" in raw:
        config.names_in_index(raw)
    installed.ollama_layers(raw)
    held = config.Weights(1 << 20, {"BF16": 1 << 19}, {}) if rng.random() < 0.3 else None
    return config.model_from_config(raw, "fuzz", held)


TARGETS: dict[str, Callable[[bytes, random.Random], Model]] = {
    "gguf": _read_gguf,
    "safetensors": _read_safetensors,
    "config": _read_config,
}


def _check(model: Model, tables: facts.Facts, rng: random.Random) -> None:
    """What resolved can be printed and weighed, and some of it goes through the whole estimate."""
    for text in (model.id, model.name, model.note, model.licence or "", model.hf_architecture or ""):
        assert text.isprintable(), f"not printable: {text!r}"
    if model.shape is not None:
        assert weights(model, model.file_quant or "BF16", tables.quantizations).total >= 0
        if rng.random() < ESTIMATED_SHARE:
            assert Estimator(tables).estimate(model, MACHINE, Request()).need_bytes >= 0


def inputs(seed: int, count: int) -> Iterator[tuple[str, bytes, random.Random]]:
    """``count`` inputs, the same ones for the same seed."""
    for index in range(count):
        rng = random.Random(f"{seed}:{index}")
        kind = KINDS[index % len(KINDS)]
        is_nested = kind != "gguf" and rng.random() < 0.002
        yield kind, nested(rng) if is_nested else mutated(rng, MAKERS[kind](rng)), rng


def run(seed: int, count: int, keep: Path | None = None) -> tuple[Counter[str], list[str], float]:
    """Outcomes by kind, failures, and the slowest input in seconds."""
    tables = facts.load()
    outcomes: Counter[str] = Counter()
    failures = []
    slowest = 0.0
    for index, (kind, data, rng) in enumerate(inputs(seed, count)):
        start = time.process_time()  # of this process alone: what else runs here does not count
        try:
            _check(TARGETS[kind](data, rng), tables, rng)
            outcome = "model"
        except FitcheckError as error:
            outcome = error.code
            if not (error.message + error.hint).isprintable():
                failures.append(f"{seed}:{index} {kind}: message not printable")
        except Exception as error:  # noqa: BLE001 - any other exception is what is looked for
            failures.append(f"{seed}:{index} {kind}: {type(error).__name__}: {error}"[:300])
            outcome = "failure"
            if keep is not None:
                (keep / f"{kind}-{index}").write_bytes(data)
        seconds = time.process_time() - start
        slowest = max(slowest, seconds)
        if seconds > MAX_SECONDS:
            failures.append(f"{seed}:{index} {kind}: took {seconds:.2f} s")
        outcomes[f"{kind}: {outcome}"] += 1
    return outcomes, failures, slowest


def limit_memory() -> None:
    """Make taking more than ``MAX_BYTES`` beyond what is in use now fail, where the system can."""
    try:
        import resource
    except ImportError:
        return
    status = Path("/proc/self/statm")
    if status.exists():
        used = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MAX_BYTES, used + MAX_BYTES))


def main() -> int:
    """Run and report; 1 if any input failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for inputs that failed")
    options = parser.parse_args()
    limit_memory()
    start = time.perf_counter()
    outcomes, failures, slowest = run(options.seed, options.count, options.keep)
    for name, number in sorted(outcomes.items()):
        print(f"{number:9,} {name}")
    for failure in failures[:50]:
        print(failure)
    seconds = time.perf_counter() - start
    print(f"{options.count:,} inputs in {seconds:.0f} s, slowest {slowest * 1000:.0f} ms, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
