"""What datasheets promise: dense rates of products by dtype, and memory bandwidth.

Beware of sparse rates. Since the A100, NVIDIA's datasheets give rates "with sparsity",
for matrices in which two of every four numbers are zero: twice the dense rate. All
rates here are dense, with sums in float32; `reading` says how each was read. They are
those of the boost clock (a CPU's: of the base clock), and no program keeps them up.
"""

from dataclasses import KW_ONLY, dataclass

from mpteach.errors import InputError

TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Processor:
    """A processor's promises: FLOP/s by dtype (None: it has no such products), bytes/s.

    `float32` is without tensor cores. `source` names the document, `reading` how the
    dense rates follow from it, `read` the day on which it was read.
    """

    name: str
    year: int
    _: KW_ONLY
    float32: float
    tfloat32: float | None = None
    float16: float | None = None
    bfloat16: float | None = None
    float8_e4m3fn: float | None = None
    bandwidth: float
    source: str
    reading: str
    read: str = "2026-11-24"

    def peak(self, dtype: str) -> float | None:
        """Return the FLOP/s of products in `dtype`; InputError for an unknown one."""
        if dtype not in PRODUCTS:
            raise InputError(
                f"unknown dtype {dtype!r}: choose from {', '.join(PRODUCTS)}."
            )
        return getattr(self, dtype)


PRODUCTS = ("float32", "tfloat32", "float16", "bfloat16", "float8_e4m3fn")

_ALL = (
    Processor(
        "V100",
        2017,
        float32=15.7 * TERA,
        float16=125 * TERA,
        bandwidth=900 * GIGA,
        source="NVIDIA V100 datasheet, SXM2; developer.nvidia.com, Programming Tensor "
        'Cores in CUDA 9: "up to 125 Tensor TFLOPS"',
        reading="dense: its tensor cores know no sparsity",
    ),
    Processor(
        "T4",
        2018,
        float32=8.1 * TERA,
        float16=65 * TERA,
        bandwidth=320 * GIGA,
        source="NVIDIA's announcement of the T4, 13 September 2018, as reported at "
        "geektopia.es: 8.1 TFLOPS in FP32, 65 TFLOPS in FP16",
        reading="dense: no sparsity; bandwidth from 256 bits at 10 Gbit/s, as at "
        "sysrqmts.com/en/gpus/nvidia/tesla/t4",
    ),
    Processor(
        "A100",
        2020,
        float32=19.5 * TERA,
        tfloat32=156 * TERA,
        float16=312 * TERA,
        bfloat16=312 * TERA,
        bandwidth=2039 * GIGA,
        source="NVIDIA A100 datasheet, 80 GB SXM, as tabulated at "
        "glennklockwood.com/garden/processors/A100",
        reading="it prints both: 312 dense, 624 with sparsity",
    ),
    Processor(
        "RTX 4090",
        2022,
        float32=82.6 * TERA,
        tfloat32=82.6 * TERA,
        float16=165.2 * TERA,
        bfloat16=165.2 * TERA,
        float8_e4m3fn=330.3 * TERA,
        bandwidth=1008 * GIGA,
        source="NVIDIA Ada GPU Architecture whitepaper, as tabulated at "
        "waredb.com/processor/nvidia-geforce-rtx-4090",
        reading="dense with sums in float32; sums in float16 double it, sparsity "
        "doubles it again",
    ),
    Processor(
        "H100",
        2022,
        float32=67 * TERA,
        tfloat32=494.5 * TERA,
        float16=989 * TERA,
        bfloat16=989 * TERA,
        float8_e4m3fn=1979 * TERA,
        bandwidth=3350 * GIGA,
        source="NVIDIA H100 datasheet, SXM, as tabulated in "
        "github.com/stas00/ml-engineering, compute/accelerator",
        reading="half of the printed rates, which are with sparsity: 989, 1,979, 3,958",
    ),
    Processor(
        "H200",
        2024,
        float32=67 * TERA,
        tfloat32=494.5 * TERA,
        float16=989 * TERA,
        bfloat16=989 * TERA,
        float8_e4m3fn=1979 * TERA,
        bandwidth=4800 * GIGA,
        source="NVIDIA H200 datasheet, SXM, as quoted at morphllm.com/nvidia-h200 and "
        "tabulated in github.com/stas00/ml-engineering",
        reading="half of the printed rates, which are with sparsity: 1,979 in 16 bits, "
        "3,958 in FP8",
    ),
    Processor(
        "B200",
        2024,
        float32=75 * TERA,
        tfloat32=1100 * TERA,
        float16=2250 * TERA,
        bfloat16=2250 * TERA,
        float8_e4m3fn=4500 * TERA,
        bandwidth=7700 * GIGA,
        source="NVIDIA Blackwell datasheet, column HGX B200, as copied at "
        "zdszero.github.io/Computer/Artificial_Intelligence/Hardware.html",
        reading="half of the printed rates: 2.2, 4.5 and 9 PFLOPS; the brief of 2024 "
        "had 80 TFLOPS in FP32 and 8 TB/s",
    ),
    Processor(
        "Xeon 6980P",
        2024,
        float32=128 * 2.0 * GIGA * 64,
        float16=128 * 2.0 * GIGA * 1024,
        bfloat16=128 * 2.0 * GIGA * 1024,
        bandwidth=12 * 8 * 8.8 * GIGA,
        source="Intel's figures as tabulated at hardwareluxx.de, article 64561: 128 "
        "cores, 2.0 GHz, 12 channels at 8,800 MT/s; Wikipedia, Advanced Matrix "
        "Extensions: 1024 BF16 operations a cycle",
        reading="cores x base clock x 64 FLOP (two AVX-512 units) or 1024 (AMX); 8 "
        "bytes a channel",
    ),
)
PROCESSORS = {one.name: one for one in _ALL}


def get(name: str) -> Processor:
    """Return the processor called `name`; raise InputError that lists the names."""
    if not isinstance(name, str) or name not in PROCESSORS:
        raise InputError(
            f"unknown processor {name!r:.60}: choose from {', '.join(PROCESSORS)}."
        )
    return PROCESSORS[name]
