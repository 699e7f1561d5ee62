"""What a decoder keeps of the tokens that it has read, to write the next one."""

from mpteach.errors import require
from mpteach.inputs import shown
from mpteach.memory.shapes import Shape, require_count


def kv_cache_bytes(shape: Shape, batch: int, tokens: int, size: int = 2) -> int:
    """Return the bytes of the keys and values of `tokens` tokens, read and written.

    For each layer, sequence and token: a key and a value of hidden / heads numbers for
    each of `kv_heads`, with `size` bytes a number. Sources: Shazeer 2019 (arXiv
    1911.02150); Ainslie et al. 2023 (arXiv 2305.13245) for keys that heads share. Raises
    InputError for sizes that are not whole numbers from 1 on.
    """
    require(isinstance(shape, Shape), f"shape was {shown(shape)}: give a Shape.")
    for name, given in (("batch", batch), ("tokens", tokens), ("size", size)):
        require_count(name, given)
    width = shape.hidden // shape.heads
    heads = shape.kv_heads or shape.heads
    return 2 * shape.layers * batch * tokens * heads * width * size
