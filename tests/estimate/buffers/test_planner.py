"""The allocator and the scheduler behave as the engine's do, on graphs small enough to follow by hand."""

from __future__ import annotations

from fitcheck.estimate.graph.planner import cuda_bytes, plan
from fitcheck.estimate.graph.tensors import HOST, Graph, Tensor


def _graph(*devices: int) -> Graph:
    layers = devices or (HOST,)
    return Graph((*layers, layers[-1]), max(layers), lambda layer, name: "q8_0")


def _finish(g: Graph, x: Tensor) -> None:
    x.output = True
    g.expand(x)


def test_an_elementwise_result_takes_the_place_of_its_only_readers_source() -> None:
    g = _graph()
    x = g.matmul(0, "up", 100, g.input("f32", 10, 8))
    _finish(g, g.unary(x))
    assert plan(g, False) == (10 * 8 * 4 + 100 * 8 * 4,)


def test_a_view_is_never_taken_over_in_place() -> None:
    g = _graph()
    x = g.matmul(0, "up", 100, g.input("f32", 10, 8))
    _finish(g, g.unary(g.reshape(x, 50, 2, 8)))
    assert plan(g, False) == (10 * 8 * 4 + 2 * 100 * 8 * 4,)


def test_a_source_that_is_read_later_keeps_its_place() -> None:
    g = _graph()
    x = g.matmul(0, "up", 100, g.input("f32", 10, 8))
    _finish(g, g.add(g.unary(x), x))
    assert plan(g, False) == (10 * 8 * 4 + 2 * 100 * 8 * 4,)


def test_freed_space_is_used_again() -> None:
    g = _graph()
    x = g.input("f32", 16, 8)
    for step in range(6):
        x = g.matmul(0, f"step{step}", 16, x)
    _finish(g, x)
    assert plan(g, False) == (2 * 16 * 8 * 4,)


def test_a_hole_that_is_too_small_counts() -> None:
    """Small, large, larger: the third does not fit where the first was."""
    g = _graph()
    first = g.matmul(0, "a", 8, g.input("f32", 8, 8))
    second = g.matmul(0, "b", 64, first)
    _finish(g, g.matmul(0, "c", 128, second))
    small, large, larger = 8 * 8 * 4, 64 * 8 * 4, 128 * 8 * 4
    assert plan(g, False) == (2 * small + large + larger,)


def test_an_input_that_nobody_reads_stays() -> None:
    g = _graph()
    g.expand(g.input("f32", 1000))
    _finish(g, g.matmul(0, "a", 8, g.input("f32", 8, 8)))
    assert plan(g, False) == (4000 + 2 * 8 * 8 * 4,)


def test_sizes_are_rounded_up_to_the_alignment_of_the_device() -> None:
    host, gpu = _graph(), _graph(1)
    for g in (host, gpu):
        _finish(g, g.matmul(0, "a", 1, g.input("f32", 1, 1)))
    assert plan(host, False) == (2 * 32,)
    assert plan(gpu, False) == (32, 2 * 128)


def test_what_crosses_between_gpus_is_copied_and_pipelining_keeps_four() -> None:
    width = 64 * 8 * 4

    def two_gpus() -> Graph:
        g = _graph(1, 2)
        x = g.matmul(0, "a", 64, g.input("f32", 64, 8))
        x = g.matmul(1, "b", 64, x)
        _finish(g, x)
        return g

    assert plan(two_gpus(), False) == (width, 2 * width, 2 * width)
    assert plan(two_gpus(), True) == (4 * width, 5 * width, 5 * width)


def test_a_host_weight_is_copied_to_the_gpu_for_large_batches_only() -> None:
    def one_expert(tokens: int) -> Graph:
        g = Graph((1, 1), 1, lambda layer, name: "q8_0")
        x = g.matmul(0, "up", 512, g.input("f32", 512, tokens))
        node = g.op("MUL_MAT", "f32", (512, tokens), x)
        _finish(g, g.tied(node, HOST, 0, "ffn_down_exps", (512, 512, 1, 1), tokens))
        return g

    weight = 512 * 512 // 32 * 34
    assert plan(one_expert(32), False)[1] > weight
    assert plan(one_expert(31), False)[1] < weight


def test_cuda_pads_rows_of_quantised_copies() -> None:
    odd, even = Tensor("q8_0", (320, 4, 1, 1), "COPY"), Tensor("q8_0", (512, 4, 1, 1), "COPY")
    assert cuda_bytes(even) == even.bytes
    assert cuda_bytes(odd) == odd.bytes + 192 // 32 * 34


def test_a_tensor_without_elements_takes_nothing() -> None:
    g = _graph()
    x = g.matmul(0, "a", 8, g.input("f32", 8, 8))
    g.expand(g.rows(x, g.input("i32", 0)))
    _finish(g, g.unary(x))
    assert plan(g, False) == (2 * 8 * 8 * 4,)
