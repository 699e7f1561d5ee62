"""Predicted beside measured: every byte of the difference gets a name."""

from collections.abc import Mapping
from dataclasses import dataclass

from mpteach.errors import require
from mpteach.memory.allocator import rounded
from mpteach.memory.timeline import Timeline

NEEDED = ("requested_peak", "allocated_peak", "reserved_peak", "cublas_workspace")


@dataclass(frozen=True)
class Reconciliation:
    """How the requested bytes of a trace become the peak that a GPU measured; in bytes.

    `requested` + `rounding` + `unsplit` + `workspace` + `kernels` + `left_over` is
    `measured`. `rounding`: blocks are multiples of 512. `unsplit`: a block is larger
    where what would remain is too small to be split off. `workspace`: that of cuBLAS,
    beyond the traced one. `kernels`: requested beyond what was traced, inside kernels.
    `left_over`: the GPU's allocator chose other blocks. `kept`: reserved beyond the peak,
    of which `kept_traced` were foreseen.
    """

    measured: int
    requested: int
    rounding: int
    unsplit: int
    workspace: int
    kernels: int
    left_over: int
    kept: int
    kept_traced: int

    @property
    def share_left_over(self) -> float:
        """What has no name, as a share of the measured peak."""
        return self.left_over / self.measured


def reconcile(timeline: Timeline, measured: Mapping[str, int]) -> Reconciliation:
    """Assign the difference between a trace and what `measure` returned for its step.

    Raises InputError where `measured` lacks a figure.
    """
    lacking = [name for name in NEEDED if name not in measured]
    require(not lacking, f"measured lacks {', '.join(lacking)}: give what measure returns.")
    alive = timeline.alive(timeline.peak)
    requested = timeline.moments[timeline.peak].requested
    rounding = sum(rounded(one.bytes) - one.bytes for one in alive)
    unsplit = sum(one.block - rounded(one.bytes) for one in alive)
    peak, summary = measured["allocated_peak"], timeline.summary()
    workspace = measured["cublas_workspace"] - summary["cublas_workspace"]
    kernels = measured["requested_peak"] - timeline.requested_peak - workspace
    named = requested + rounding + unsplit + workspace + kernels
    return Reconciliation(
        measured=peak,
        requested=requested,
        rounding=rounding,
        unsplit=unsplit,
        workspace=workspace,
        kernels=kernels,
        left_over=peak - named,
        kept=measured["reserved_peak"] - peak,
        kept_traced=timeline.reserved_peak - timeline.allocated_peak,
    )
