"""torch.compile for code that one process runs under many precisions."""

GRAPHS = 64  # of one piece of code: each precision has its own


def allow_many_precisions() -> None:
    """Set torch.compile up for this process: more than `GRAPHS` graphs are an error.

    torch would go on uncompiled at its own limit. And to the cache of whole graphs in
    torch 2.11, autocast to float16 and to bfloat16 are the same
    (github.com/pytorch/pytorch/pull/181564): it is off, that of kernels stays.
    """
    # torch's compiler takes a second to load: not before it is needed.
    from torch._dynamo import config as dynamo
    from torch._functorch import config as functorch

    dynamo.recompile_limit = GRAPHS
    dynamo.fail_on_recompile_limit_hit = True
    functorch.enable_autograd_cache = False
