"""What a traced step held at each moment: every storage, and the allocator's view of it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mpteach.memory.allocator import CachingAllocator

CATEGORIES = (
    "parameters",
    "gradients",
    "optimizer",
    "masters",
    "activations",
    "weight casts",
    "temporaries",
    "batch",
    "workspace",
)


@dataclass
class Storage:
    """A piece of memory: what made it, what it was for, the events of birth and death."""

    bytes: int
    phase: str
    step: int
    module: str
    operation: str
    category: str
    born: int
    died: int | None = None
    block: int = 0  # the bytes that the allocator gave for it

    def is_alive(self, event: int) -> bool:
        """Whether it is there after `event`."""
        return self.born <= event and (self.died is None or event < self.died)


class Moment(NamedTuple):
    """The state after one event; bytes are those of CachingAllocator."""

    phase: str
    step: int
    requested: int
    allocated: int
    reserved: int


class Timeline:
    """All storages of a traced run in order of birth, and a Moment for each event.

    All sizes in bytes. Peaks are over the whole run.
    """

    def __init__(self, storages: list[Storage], phases: list[tuple[str, int]]) -> None:
        self.storages = storages
        self.moments = _replayed(storages, phases)

    @property
    def requested_peak(self) -> int:
        """The most that live tensors asked for at one moment."""
        return max(moment.requested for moment in self.moments)

    @property
    def allocated_peak(self) -> int:
        """What torch.cuda.max_memory_allocated would say."""
        return max(moment.allocated for moment in self.moments)

    @property
    def reserved_peak(self) -> int:
        """What torch.cuda.max_memory_reserved would say."""
        return max(moment.reserved for moment in self.moments)

    @property
    def peak(self) -> int:
        """The first event after which most is allocated."""
        return max(range(len(self.moments)), key=lambda e: self.moments[e].allocated)

    @property
    def phase_of_peak(self) -> str:
        """Where `peak` lies: "forward", "backward" or "step"."""
        return self.moments[self.peak].phase

    @property
    def steps(self) -> int:
        """How many steps were traced."""
        return self.moments[-1].step

    def events(self, phase: str, step: int | None = None) -> list[int]:
        """Return the events of one phase of `step` (from 1), the last one by default."""
        wanted = phase, self.steps if step is None else step
        return [e for e, moment in enumerate(self.moments) if moment[:2] == wanted]

    def peak_in(self, phase: str, step: int | None = None) -> int:
        """Return the allocated peak of one phase, what it begins with included."""
        events = self.events(phase, step)
        begin = events[:1] and [max(0, events[0] - 1)]
        return max((self.moments[e].allocated for e in begin + events), default=0)

    def alive(self, event: int) -> list[Storage]:
        """Return the storages that are there after `event`."""
        return [one for one in self.storages if one.is_alive(event)]

    def by_category(self, event: int, of: str = "block") -> dict[str, int]:
        """Return the bytes after `event` for each of CATEGORIES.

        `of`: "block" for what was allocated, "bytes" for what was requested.
        """
        sums = Counter(dict.fromkeys(CATEGORIES, 0))
        for one in self.alive(event):
            sums[one.category] += getattr(one, of)
        return dict(sums)

    def summary(self) -> dict[str, int | str]:
        """Return the figures that a measurement has too, under the same names.

        `activations` hold the live weight casts, `parameters` buffers; masters are apart.
        """
        forward, backward, step = (
            self.by_category(events[-1]) if (events := self.events(phase)) else {}
            for phase in ("forward", "backward", "step")
        )
        return {
            "parameters": forward["parameters"],
            "gradients": backward.get("gradients", 0),
            "optimizer_state": step.get("optimizer", 0),
            "master_weights": step.get("masters", 0),
            "activations": forward["activations"] + forward["weight casts"],
            "requested_peak": self.requested_peak,
            "allocated_peak": self.allocated_peak,
            "reserved_peak": self.reserved_peak,
            "cublas_workspace": sum(
                one.bytes for one in self.storages if one.category == "workspace"
            ),
            "phase_of_peak": self.phase_of_peak,
        }


def _replayed(
    storages: list[Storage], phases: Iterable[tuple[str, int]]
) -> list[Moment]:
    """Take the storages through the allocator, in the order of their events."""
    births = {one.born: one for one in storages}
    deaths = {one.died: one for one in storages if one.died is not None}
    allocator, addresses, moments = CachingAllocator(), {}, []
    for event, phase in enumerate(phases):
        if one := births.get(event):
            before = allocator.allocated
            addresses[one.born] = allocator.malloc(one.bytes)
            one.block = allocator.allocated - before
        else:
            allocator.free(addresses.pop(deaths[event].born))
        state = allocator.requested, allocator.allocated, allocator.reserved
        moments.append(Moment(*phase, *state))
    return moments
