"""How a CUDA kernel divides a sum over the rows of a matrix, as for a bias's gradient.

Many blocks share a long sum, and leave their parts in a buffer. Source:
aten/src/ATen/native/cuda/Reduce.cuh (setReduceConfig), of torch 2.11.
"""

MULTIPROCESSORS = 132  # of an H100 or H200
_THREADS, _WARP, _VECTOR = 512, 32, 4  # of a block, and outputs of a thread
_THREADS_A_MULTIPROCESSOR = 2048
BYTES_A_PART = 4 * _WARP * _VECTOR  # of a column: a float32 for each output of a warp


def parts(rows: int, columns: int) -> int:
    """Return how many blocks share the sum of each column; 0 if one adds it up alone."""
    if columns < _WARP * _VECTOR or rows < 4:
        return 0
    high = _THREADS // _VECTOR // _WARP
    values = -(-rows // high)  # a thread's, if one block adds up a whole column
    wide = -(-columns // (_VECTOR * _WARP))
    blocks = MULTIPROCESSORS * _THREADS_A_MULTIPROCESSOR // (_WARP * high)
    if rows < high * 16 or values < 16 or wide > blocks:
        return 0
    split = max(min(-(-blocks // wide), -(-values // 16)), -(-values // 256))
    return split if split > 1 else 0
