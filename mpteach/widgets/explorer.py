"""The bit explorer: click a bit, type a number, and read what the code means.

The arithmetic is in `arithmetic.js`, on integers; this module hands it the formats and
keeps the code that is shown. What a cell displays holds everything a page needs to go
on without a kernel and without a network.
"""

import dataclasses
import html
import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import anywidget
import traitlets

from mpteach import formats as families
from mpteach.errors import InputError
from mpteach.formats import FloatFormat
from mpteach.inputs import shown

_IMPORTS_END = 'from "./arithmetic.js";\n'
_PAGE = """\
<div class="mpteach-bit-explorer">
<p>{summary}</p>
<script type="application/json">{data}</script>
</div>
<script type="module">
{program}startAll();
</script>
"""


def _program() -> str:
    """Return the explorer as one module of JavaScript, its style sheet inside."""
    files = resources.files("mpteach.widgets")
    texts = [
        files.joinpath(name).read_text(encoding="utf-8")
        for name in ("explorer.css", "arithmetic.js", "explorer.js")
    ]
    style, arithmetic, view = texts
    return (
        f"const STYLE = {_json(style)};\n{arithmetic}{view.partition(_IMPORTS_END)[2]}"
    )


def _json(value: Any) -> str:
    # Inside a script element no "<" may open a tag.
    return json.dumps(value, ensure_ascii=False, sort_keys=True).replace("<", "\\u003c")


class _Checked(traitlets.TraitType):
    """A trait whose values the widget's method of this name returns or refuses."""

    def __init__(self, checker: str, default: Any, **kwargs: Any) -> None:
        super().__init__(default, **kwargs)
        self.checker = checker

    def validate(self, owner: "BitExplorer", value: Any) -> Any:
        return getattr(owner, self.checker)(value)


class BitExplorer(anywidget.AnyWidget):
    """The bits of one number in one format, to click, to type and to compare.

    `format` is a name of `mpteach.formats` or a FloatFormat of your own, `value` the
    number to start from, rounded to it once; `formats` are those to choose from, all
    of `mpteach.formats` unless given. Raises InputError for an unknown format, for
    two formats of one name and for a value that the format cannot hold.

    `format` (a name) and `code` follow what the reader does; both can be observed and
    set. Setting `format` keeps the number, setting `code` the format. Raises InputError
    for what is no name of a format here, and no code of it.
    """

    format = _Checked("_known_name", "", help="name of the format shown")
    code = _Checked("_own_code", 0, help="code shown, an integer of the format's bits")

    _esm = _program()
    _formats = traitlets.List(traitlets.Dict()).tag(sync=True)
    # One trait for the view, as a format and its code only make sense together. The
    # code is in hexadecimal digits: JavaScript's own numbers end at 2^53.
    _shown = _Checked("_possible_state", None).tag(sync=True)

    def __init__(
        self,
        format: str | FloatFormat = "float16",
        value: float = 0.1,
        formats: Iterable[str | FloatFormat] | None = None,
    ) -> None:
        chosen, self._by_name = _choice(format, formats)
        codes = chosen.encode(value)
        if codes.ndim:
            raise InputError(f"a value of shape {codes.shape}: give one number.")
        super().__init__(
            _formats=[dataclasses.asdict(fmt) for fmt in self._by_name.values()],
            _shown=_state(chosen.name, int(codes), repr(float(value))),
        )

    @property
    def value(self) -> float:
        """The exact value of the code, in float64."""
        return float(self._format_called(self.format).decode(self.code))

    def __repr__(self) -> str:
        """Return the same text for the same state: stored notebooks are compared."""
        return f"BitExplorer(format={self.format!r}, code={self._hex(self.code)})"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        bundle, metadata = super()._repr_mimebundle_(**kwargs)
        data = {"formats": self._formats, "shown": self._shown}
        page = _PAGE.format(
            summary=html.escape(self._summary()), data=_json(data), program=_program()
        )
        return bundle | {"text/plain": repr(self), "text/html": page}, metadata

    def _summary(self) -> str:
        """Return what a page shows where no program may run."""
        fields = self._format_called(self.format).fields_of(self.code)
        return (
            f"{self.format}, code {self._hex(self.code)}: bits {fields.pattern}, value "
            f"{fields.value!r} ({fields.kind}). Run the cell to explore it."
        )

    def _hex(self, code: int) -> str:
        return f"0x{code:0{-(-self._format_called(self.format).bits // 4)}x}"

    def _format_called(self, name: str) -> FloatFormat:
        if not isinstance(name, str) or name not in self._by_name:
            known = ", ".join(self._by_name)
            raise InputError(f"unknown format {shown(name)}: choose from {known}.")
        return self._by_name[name]

    def _known_name(self, name: Any) -> str:
        return self._format_called(name).name

    def _own_code(self, code: Any) -> int:
        self._format_called(self.format).fields_of(code)
        return int(code)

    def _possible_state(self, state: Any) -> dict[str, str]:
        texts = state.values() if isinstance(state, dict) else ()
        if (
            not texts
            or set(state) != {"format", "code", "asked"}
            or not all(isinstance(text, str) for text in texts)
            or not re.fullmatch("[0-9a-f]+", state["code"])
        ):
            raise InputError(
                f"state {shown(state)}: give format, code and asked as texts, the code "
                "in hexadecimal digits."
            )
        self._format_called(state["format"]).fields_of(int(state["code"], 16))
        return state

    @traitlets.observe("_shown")
    def _follow_the_view(self, change: Mapping[str, Any]) -> None:
        with self.hold_trait_notifications():
            self.format = change["new"]["format"]
            self.code = int(change["new"]["code"], 16)

    @traitlets.observe("format")
    def _keep_the_number(self, change: Mapping[str, Any]) -> None:
        if change["new"] == self._shown["format"]:
            return
        number = self._format_called(change["old"]).decode(self.code)
        try:
            code = int(self._format_called(change["new"]).encode(number))
        except InputError:
            self.format = change["old"]
            raise
        self._shown = _state(change["new"], code)

    @traitlets.observe("code")
    def _keep_the_format(self, change: Mapping[str, Any]) -> None:
        if change["new"] != int(self._shown["code"], 16):
            self._shown = _state(self.format, change["new"])


def _choice(
    asked: str | FloatFormat, given: Iterable[str | FloatFormat] | None
) -> tuple[FloatFormat, dict[str, FloatFormat]]:
    """Return the format asked for, and by name all those to choose from, it included."""
    given = families.FORMATS if given is None else given
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(
            f"formats was {shown(given)}: give a list of formats or their names."
        )
    every = [*map(families.get, given)]
    known = {fmt.name: fmt for fmt in every}
    chosen = known[asked] if isinstance(asked, str) and asked in known else None
    chosen = chosen or families.get(asked)
    if chosen not in every:
        every.append(chosen)
    names = [fmt.name for fmt in every]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"two formats are named {', '.join(twice)}: give each a name of its own."
        )
    return chosen, dict(zip(names, every, strict=True))


def _state(name: str, code: int, asked: str = "") -> dict[str, str]:
    return {"format": name, "code": f"{code:x}", "asked": asked}
