"""What CUDA's kernels take for themselves, computed from the shapes."""

from types import SimpleNamespace

import torch

from mpteach.memory.cases import decoder_case
from mpteach.memory.reductions import BYTES_A_PART, parts
from mpteach.memory.scratch import scratch
from mpteach.memory.shapes import Shape
from mpteach.memory.trace import trace

aten = torch.ops.aten


def empty(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def test_a_long_sum_is_shared_by_blocks():
    """The recorded small model, 16,384 rows of 512, fits its peak with these 2^26 bytes."""
    assert parts(16_384, 512) == 256 and parts(4096, 512) == 64
    assert BYTES_A_PART * 512 * 256 == 2**26
    for rows, columns in ((3, 512), (63, 512), (16_384, 64)):
        assert parts(rows, columns) == 0
    call = aten.sum.dim_IntList
    assert scratch(call, (empty(16_384, 512), [0], True), empty(1, 512)) == 2**26
    assert scratch(call, (empty(16_384, 512), [1], True), empty(16_384, 1)) == 0
    assert scratch(call, (empty(4, 4096, 512), [0], True), empty(1)) == 0


def test_the_gradient_of_an_embedding_is_summed_in_pieces_beyond_3072_rows():
    call = aten.embedding_dense_backward.default

    def taken(rows, words):
        indices = empty(rows, dtype=torch.int64)
        given = empty(rows, 64), indices, words, -1, False
        return scratch(call, given, empty(words, 64))

    assert taken(3072, 500) == 0
    assert taken(4000, 500) == 4 * 64 * (400 + 500)
    assert taken(4000, 50_000) == 4 * 64 * (400 + 4000)


def test_a_convolution_is_copied_to_channels_last_unless_it_lies_so():
    call = aten.convolution.default
    x, weight, y = empty(2, 3, 8, 8), empty(16, 3, 3, 3), empty(2, 16, 8, 8)
    padded = x.nbytes // 3 * 4  # channels fill 16 bytes
    assert scratch(call, (x, weight), y) == padded + weight.nbytes + y.nbytes
    last = x.to(memory_format=torch.channels_last)
    assert scratch(call, (last, weight), y) == 0
    assert scratch(call, (x, empty(16, 3, 1, 1)), y) == 0


def test_the_softmax_takes_a_product_and_other_operations_nothing():
    grad = empty(4, 8, 8)
    softmax = aten._softmax_backward_data.default
    assert scratch(softmax, (grad, grad, -1), grad) == grad.nbytes
    assert scratch(aten.mm.default, (grad, grad), grad) == 0


def test_scratch_is_gone_at_once_and_is_no_activation():
    made = decoder_case(
        Shape(layers=2, heads=2, hidden=64, vocabulary=96),
        (4, 32),
        SimpleNamespace(attention="materialised", dropout=0.0, checkpointing=False),
    )
    timeline = trace(made.make_model, made.make_batch, loss_fn=made.loss_fn)
    inside = [one for one in timeline.storages if one.operation.startswith("inside ")]
    assert inside and all(one.died == one.born + 1 for one in inside)
    assert {one.category for one in inside} == {"temporaries"}
