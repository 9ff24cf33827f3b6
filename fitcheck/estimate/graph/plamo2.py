"""PLaMo-2: attention alternates with a Mamba-2 whose time step, B and C come from one low-rank projection, normed.

Source: llama.cpp 0c1e57098, src/models/plamo2.cpp.
"""

from __future__ import annotations

from fitcheck.estimate.graph.decoder import Decoder
from fitcheck.estimate.graph.model import ModelGraph
from fitcheck.estimate.graph.recurrent import StateInputs, convolution_input, convolve, scanned, state_of, with_view
from fitcheck.estimate.graph.tensors import Tensor
from fitcheck.types import Mamba2, Mixer

LEAST_RANK, RANK_SHARE = 64, 16  # of the time step: a 16th of the model's width, 64 at least


class PLaMo2(Decoder):
    """The usual decoder with this mixer."""

    def _mix(self, il: int, x: Tensor, mixer: Mixer) -> Tensor:
        if isinstance(mixer, Mamba2):
            return normed_mamba2(self.g, il, x, mixer, self.states)
        return super()._mix(il, x, mixer)


def normed_mamba2(g: ModelGraph, il: int, x: Tensor, spec: Mamba2, inputs: StateInputs) -> Tensor:
    """Projection, short convolution, time step and B and C, scan, gate, output."""
    d_inner, heads, d_state = spec.d_inner, spec.n_heads, spec.d_state
    head, n, tokens = d_inner // heads, g.sequences, g.sequence_tokens
    zx = g.matmul(il, "ssm_in", 2 * d_inner, g.reshape(x, g.d, tokens, n))
    zx = g.cont(g.permute(zx, 0, 2, 1, 3), 2 * head, heads, tokens, n)
    x, z = (g.view(zx, (head, heads, tokens, n), zx.nb()[1:]) for _ in range(2))
    x = g.cont(x, d_inner, tokens, n)
    both = convolution_input(g, il, inputs, g.transpose(x), spec.conv_kernel, d_inner)
    x = g.unary(convolve(g, il, both, spec.conv_kernel, d_inner))
    b, c, dt = _steps(g, il, x, spec)
    values = g.view(x, (head, heads, tokens, n), (4 * head, 4 * d_inner, 4 * d_inner * tokens))
    states = state_of(g, il, d_state * d_inner)

    def scan(rows: Tensor, ids: Tensor) -> Tensor:
        state = g.reshape(rows, d_state, head, heads, n)
        node = g.op("SSM_SCAN", "f32", (values.elements + d_state * d_inner * n,), state, values, dt, b, c, ids)
        node.host_only = d_state not in (96, 128, 256) or head % 16 != 0
        return node

    y = scanned(g, inputs, states, d_state * d_inner, scan)
    y = g.view(y, (head, heads, tokens, n), (4 * head, 4 * d_inner, 4 * d_inner * tokens))
    y = g.add(y, with_view(g, g.same("MUL", values), il, "ssm_d", 1, heads))
    y = g.glu(g.cont(z), y)
    return g.reshape(g.matmul(il, "ssm_out", g.d, g.view(y, (d_inner, tokens, n))), g.d, tokens * n)


def _steps(g: ModelGraph, il: int, x: Tensor, spec: Mamba2) -> tuple[Tensor, Tensor, Tensor]:
    """B and C as [state, 1, tokens, sequences], and the time step as [heads, tokens, sequences]."""
    d_state, n, tokens = spec.d_state, g.sequences, g.sequence_tokens
    rank = max(LEAST_RANK, g.d // RANK_SHARE)
    low = g.matmul(il, "ssm_x", rank + 2 * d_state, x)
    b, c, dt = (g.view(low, (width, tokens, n), low.nb()[1:3]) for width in (d_state, d_state, rank))
    b, c = g.rms_norm(b, il, "ssm_b_norm"), g.rms_norm(c, il, "ssm_c_norm")
    dt = g.matmul(il, "ssm_dt", spec.n_heads, g.rms_norm(dt, il, "ssm_dt_norm"))
    dt = g.vector("ADD", il, "ssm_dt", dt)
    return g.reshape(b, d_state, 1, tokens, n), g.reshape(c, d_state, 1, tokens, n), dt
