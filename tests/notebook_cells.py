"""A notebook as its rules see it: cells with their outputs, cut into sections."""

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mpteach import editions


def called(node: ast.expr) -> str:
    """Return the last name of what `node` calls: "show" for `style.show(...)`."""
    called = node.func if isinstance(node, ast.Call) else None
    return getattr(called, "attr", getattr(called, "id", ""))


def top_calls(tree: ast.Module) -> list[ast.Call]:
    values = [node.value for node in tree.body if isinstance(node, ast.Expr)]
    return [value for value in values if isinstance(value, ast.Call)]


@dataclass(frozen=True)
class Cell:
    """A cell and its place in the notebook."""

    index: int
    raw: dict[str, Any]

    @property
    def where(self) -> str:
        """How a sentence names the cell: its id and index."""
        return f"cell {self.raw.get('id')} ({self.index})"

    @property
    def source(self) -> str:
        return self.raw["source"]

    @property
    def is_code(self) -> bool:
        return self.raw["cell_type"] == "code"

    @property
    def lines(self) -> list[str]:
        return self.source.splitlines()

    @property
    def outputs(self) -> list[dict[str, Any]]:
        return self.raw.get("outputs", [])

    @property
    def tags(self) -> set[str]:
        return set(self.raw["metadata"].get("tags", []))

    @property
    def is_live(self) -> bool:
        return editions.LIVE_TAG in self.tags

    @property
    def marks(self) -> dict[str, Any]:
        """The nbgrader metadata."""
        return self.raw["metadata"].get("nbgrader", {})

    @cached_property
    def tree(self) -> ast.Module:
        """The code, parsed; empty where it is not Python (a rule of its own)."""
        try:
            return ast.parse(self.source)
        except SyntaxError:
            return ast.Module(body=[], type_ignores=[])

    @property
    def checked(self) -> str:
        """The id of the exercise that the cell checks, or ""."""
        for call in top_calls(self.tree):
            if (
                called(call) == "check"
                and call.args
                and isinstance(call.args[0], ast.Constant)
            ):
                return str(call.args[0].value)
        return ""

    @property
    def images(self) -> list[dict[str, Any]]:
        """The outputs that hold a picture."""
        return [
            out
            for out in self.outputs
            if any("image/" in kind for kind in out.get("data", {}))
        ]

    @property
    def printed(self) -> str:
        """What the outputs say in text: streams, and values that are no pictures."""
        texts = [out.get("text", "") for out in self.outputs]
        for out in self.outputs:
            if out not in self.images:
                texts.append(out.get("data", {}).get("text/plain", ""))
        return "\n".join(texts)


@dataclass(frozen=True)
class Section:
    """The cells from one `##` heading to the next; the opening has no title."""

    title: str
    cells: list[Cell]

    @property
    def prose(self) -> str:
        return "\n\n".join(cell.source for cell in self.cells if not cell.is_code)

    @property
    def code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.is_code]


@dataclass(frozen=True)
class Notebook:
    """A notebook cut into cells and sections."""

    name: str
    raw: dict[str, Any]

    @cached_property
    def cells(self) -> list[Cell]:
        return [Cell(index, raw) for index, raw in enumerate(self.raw["cells"])]

    @property
    def code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.is_code]

    @property
    def size_bytes(self) -> int:
        """The bytes of its file, as `make notebooks` writes it."""
        return len(editions.dumps(self.raw).encode())

    @property
    def longest_lines(self) -> int:
        """The lines of its longest code cell."""
        return max((len(cell.lines) for cell in self.code), default=0)

    @cached_property
    def sections(self) -> list[Section]:
        """The opening, then one section a `##` heading."""
        found = [Section("", [])]
        for cell in self.cells:
            if not cell.is_code and cell.source.startswith("## "):
                found.append(Section(cell.source.splitlines()[0][3:].strip(), []))
            found[-1].cells.append(cell)
        return found
