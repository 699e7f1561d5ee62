"""Ways to break a notebook: each takes the valid template and spoils one thing."""

from collections.abc import Callable
from typing import Any

import pytest

from mpteach import editions
from tests.notebook_budgets import LARGEST_BYTES

Notebook = dict[str, Any]
Bite = Callable[[Notebook], None]
BITES: list[Any] = []


def bite(rule: str, where: str, said: str) -> Callable[[Bite], Bite]:
    """Register a way to break the template: which rule says it of which cell, how."""

    def register(damage: Bite) -> Bite:
        BITES.append(pytest.param(damage, rule, where, said, id=damage.__name__))
        return damage

    return register


def cell_of(nb: Notebook, name: str) -> dict[str, Any]:
    return next(cell for cell in nb["cells"] if cell["id"] == name)


def add_output(nb: Notebook, name: str, text: str, stream: str = "stdout") -> None:
    said = {"output_type": "stream", "name": stream, "text": text}
    cell_of(nb, name)["outputs"].append(said)


def add_text(nb: Notebook, name: str, text: str) -> None:
    cell_of(nb, name)["source"] += text


def result(text: str) -> dict[str, Any]:
    data = {"text/plain": text}
    return {
        "output_type": "execute_result",
        "metadata": {},
        "data": data,
        "execution_count": 2,
    }


@bite("executed_in_order", "halve-ratio", "has not been executed")
def stripped_as_a_whole(nb):
    for cell in nb["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)


@bite("executed_in_order", "imports", "has not been executed")
def one_cell_not_executed(nb):
    cell_of(nb, "imports")["execution_count"] = None


@bite("executed_in_order", "halve-ratio", "stores no output")
def outputs_stripped_but_counts_kept(nb):
    cell_of(nb, "halve-ratio")["outputs"] = []


@bite("executed_in_order", "halve-ratio", "ran out of order (12 instead of 4)")
def run_out_of_order(nb):
    cell_of(nb, "halve-ratio")["execution_count"] = 12


@bite("executed_in_order", "halve-count", "ran out of order (3 instead of 2)")
def two_cells_run_in_the_other_order(nb):
    cell_of(nb, "halve-count")["execution_count"] = 3
    cell_of(nb, "halve-figure")["execution_count"] = 2


@bite("plain_python", "halve-count", "not plain Python")
def a_magic(nb):
    add_text(nb, "halve-count", "\n%timeit halve(np.float16)")


@bite("plain_python", "halve-count", "semicolon")
def a_trailing_semicolon(nb):
    add_text(nb, "halve-count", "\nlen(counts);")


@bite("plain_python", "imports", "no code")
def an_empty_cell(nb):
    cell_of(nb, "imports")["source"] = "# nothing"


@bite("clean_outputs", "halve-count", "writes to stderr (beware)")
def a_cell_with_stderr(nb):
    add_output(nb, "halve-count", "beware\n", "stderr")


@bite("clean_outputs", "halve-count", "stores an error (ValueError)")
def a_stored_error(nb):
    error = {
        "output_type": "error",
        "ename": "ValueError",
        "evalue": "",
        "traceback": [],
    }
    cell_of(nb, "halve-count")["outputs"].append(error)


@bite("clean_outputs", "halve-count", "a warning (UserWarning:)")
def a_printed_warning(nb):
    add_output(nb, "halve-count", "UserWarning: it is late\n")


@bite("clean_outputs", "halve-count", "a memory address (at 0x104f2a3d0)")
def a_memory_address(nb):
    add_output(nb, "halve-count", "[Line2D at 0x104f2a3d0]\n")


@bite("clean_outputs", "halve-count", "a memory address (0x7f0d30406340)")
def a_bare_memory_address(nb):
    add_output(nb, "halve-count", "id 0x7f0d30406340\n")


@bite("clean_outputs", "halve-count", "a bare object (<Axes: xlabel='x'>)")
def a_bare_object(nb):
    cell_of(nb, "halve-count")["outputs"].append(result("<Axes: xlabel='x'>"))


@bite("clean_outputs", "halve-count", "a path of one machine (/home/a")
def a_path_in_an_output(nb):
    add_output(nb, "halve-count", "saved to /home/ada/run.json\n")


@bite("clean_outputs", "halve-count", "a path of one machine (C:\\U")
def a_windows_path_in_code(nb):
    add_text(nb, "halve-count", "\nplace = r'C:\\Users\\ada'")


@bite("no_unreadable_widgets", "halve-count", "uses interact:")
def interact(nb):
    add_text(nb, "halve-count", "\n_ = interact(halve)")


@bite("no_unreadable_widgets", "halve-count", "uses Output:")
def an_output_widget(nb):
    add_text(nb, "halve-count", "\nout = widgets.Output()")


@bite("short_cells", "halve-count", "29 lines of code: at most 25")
def an_over_long_cell(nb):
    add_text(nb, "halve-count", "\nx = 1" * 20)


@bite("short_cells", "halve-count", "89 characters in line 10")
def an_over_wide_line(nb):
    add_text(nb, "halve-count", "\n" + "x = " + "1" * 85)


@bite("short_cells", "imports", "the median of its code cells is 9 lines")
def long_cells_in_the_median(nb):
    for cell in nb["cells"]:
        if cell["cell_type"] == "code" and "check(" not in cell["source"]:
            lines = cell["source"].count("\n") + 1
            cell["source"] += "\n# more" * (9 - lines)


@bite("canonical", "halve-count", "not in canonical form")
def timings_in_the_metadata(nb):
    cell_of(nb, "halve-count")["metadata"]["execution"] = {"iopub.status.busy": "now"}


@bite("canonical", "halve-count", "not in canonical form")
def a_widget_view(nb):
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}}
    view = {"output_type": "display_data", "metadata": {}, "data": data}
    cell_of(nb, "halve-count")["outputs"].append(view)


@bite("canonical", "its metadata", "not in canonical form")
def a_foreign_kernel(nb):
    nb["metadata"]["kernelspec"]["name"] = "my-env"


@bite("canonical", "its metadata", "not in canonical form")
def the_version_of_the_language(nb):
    nb["metadata"]["language_info"]["version"] = "3.11.7"


@bite("canonical", "its metadata", "not in canonical form")
def widget_state(nb):
    nb["metadata"]["widgets"] = {}


@bite("canonical", "cell 3f0a91bc (4)", "random id")
def a_random_id(nb):
    cell_of(nb, "halve-count")["id"] = "3f0a91bc"


@bite("canonical", "cell f30a91bc (4)", "random id")
def a_random_id_that_starts_with_a_letter(nb):
    cell_of(nb, "halve-count")["id"] = "f30a91bc"


@bite("canonical", "cell None (4)", "random id")
def no_id(nb):
    del cell_of(nb, "halve-count")["id"]


@bite("canonical", "cell imports (4)", "an id that another cell has")
def an_id_used_twice(nb):
    cell_of(nb, "halve-count")["id"] = "imports"


@bite("canonical", "halve-notes", "stay under 1,000,000")
def a_megabyte(nb):
    add_text(nb, "halve-notes", " word" * (LARGEST_BYTES // 5))


@bite("figures_speak", "halve-figure", "prints no number")
def a_figure_cell_that_prints_nothing(nb):
    cell = cell_of(nb, "halve-figure")
    cell["outputs"] = [out for out in cell["outputs"] if out["output_type"] != "stream"]


@bite("figures_speak", "halve-figure", "prints no number")
def a_figure_cell_that_prints_only_words(nb):
    for out in cell_of(nb, "halve-figure")["outputs"]:
        if "text" in out:
            out["text"] = "done\n"


@bite("figures_speak", "halve-figure", "without alt text")
def a_figure_without_alt_text(nb):
    for out in cell_of(nb, "halve-figure")["outputs"]:
        out["metadata"] = {}


@bite("figures_speak", "halve-figure", "type of 9.5 points")
def a_figure_with_small_type(nb):
    for out in cell_of(nb, "halve-figure")["outputs"]:
        for told in out.get("metadata", {}).values():
            told["smallest_type"] = 9.5


@bite("opening_complete", "title", "the notebook's one title")
def no_title(nb):
    cell = cell_of(nb, "title")
    cell["source"] = cell["source"].removeprefix("# ")


@bite("opening_complete", "title", "the notebook's one title")
def a_second_title(nb):
    cell_of(nb, "halve-shown")["source"] = "# Another title"


for _line, _missing in {
    "- **You will do:**": "what the reader will do",
    "- **You will learn:**": "what the reader will learn",
    "- **You need:**": "what the reader needs",
    "- **Minutes:**": "how many minutes",
    "- **It runs on:**": "where it runs",
}.items():

    def _an_opening_without(nb, line=_line):
        cell = cell_of(nb, "title")
        cell["source"] = cell["source"].replace(line, "- ")

    _an_opening_without.__name__ = f"an_opening_without_{_missing.replace(' ', '_')}"
    bite("opening_complete", "title", _missing)(_an_opening_without)


@bite("sections_complete", "halve-result", "no result in a bold sentence")
def a_section_without_result(nb):
    cell = cell_of(nb, "halve-result")
    cell["source"] = cell["source"].replace("**", "")


@bite("sections_complete", "halve-result", "asks for no prediction")
def a_section_without_prediction(nb):
    cell = cell_of(nb, "halve-predict")
    cell["source"] = cell["source"].replace("Predict: ", "")


@bite("sections_complete", "halve-result", "no code after its prediction")
def a_prediction_after_the_code(nb):
    cell = cell_of(nb, "halve-predict")
    cell["source"] = "Now look."
    add_text(nb, "halve-shown", "\n\nPredict: what was it?")
    nb["cells"].remove(cell_of(nb, "halve-ratio"))


@bite("sections_complete", "sources", "does not close the notebook")
def no_summary(nb):
    cell = cell_of(nb, "sum-up")
    cell["source"] = cell["source"].replace("## Sum up", "")


@bite("sections_complete", "sources", "does not close the notebook")
def no_sources(nb):
    cell_of(nb, "sources")["source"] = "That is all."


@bite("sections_complete", "halve-shown", "further down")
def a_heading_in_the_middle_of_a_cell(nb):
    add_text(nb, "halve-shown", "\n\n## Go on")


@bite("metadata_complete", "its metadata.mpteach.question", "must be a str")
def no_question(nb):
    del nb["metadata"]["mpteach"]["question"]


@bite("metadata_complete", "its metadata.mpteach.minutes", "must be a int")
def minutes_in_words(nb):
    nb["metadata"]["mpteach"]["minutes"] = "five"


@bite("metadata_complete", "title", "does not say 7 minutes")
def other_minutes_in_the_opening(nb):
    nb["metadata"]["mpteach"]["minutes"] = 7


@bite("metadata_complete", "halve-count", "slide type None")
def a_cell_without_a_place_on_a_slide(nb):
    del cell_of(nb, "halve-count")["metadata"]["slideshow"]


@bite("nothing_skipped", "halve-ratio", "asserts nothing")
def a_live_cell_that_asserts_nothing(nb):
    cell_of(nb, "halve-ratio")["metadata"]["tags"] = [editions.LIVE_TAG]


@bite("nothing_skipped", "halve-count", "has the tag nbval-skip")
def a_skipped_cell(nb):
    cell_of(nb, "halve-count")["metadata"]["tags"] = ["nbval-skip"]


@bite("nothing_skipped", "halve-count", "by a comment")
def a_cell_ignored_by_a_comment(nb):
    add_text(nb, "halve-count", "\n# NBVAL_IGNORE_OUTPUT")


@bite("exercises_complete", "practise", "2 checked exercises, at least 3")
def two_exercises(nb):
    nb["cells"].remove(cell_of(nb, "last-check"))


@bite("exercises_complete", "practise", "labelled (hard)")
def no_hard_exercise(nb):
    cell = cell_of(nb, "last-question")
    cell["source"] = cell["source"].replace("(hard)", "")


@bite("exercises_complete", "practise", "labelled (open)")
def no_open_exercise(nb):
    cell = cell_of(nb, "open-question")
    cell["source"] = cell["source"].replace("(open)", "")


@bite("exercises_complete", "count-check", "lacks nbgrader metadata")
def a_check_without_metadata(nb):
    del cell_of(nb, "count-check")["metadata"]["nbgrader"]


@bite("exercises_complete", "count-check", "lacks nbgrader metadata")
def a_check_without_points(nb):
    del cell_of(nb, "count-check")["metadata"]["nbgrader"]["points"]


@bite("exercises_complete", "count-answer", "must hold the answer to template-2")
def an_answer_without_metadata(nb):
    del cell_of(nb, "count-answer")["metadata"]["nbgrader"]


@bite("exercises_complete", "count-check", "does not store 'template-2: correct'")
def an_exercise_stored_unsolved(nb):
    cell_of(nb, "count-check")["outputs"][0]["text"] = "template-2: not attempted\n"


@bite("exercises_complete", "count-check", "nothing else")
def a_check_with_more_in_its_cell(nb):
    add_text(nb, "count-check", "\nprint(count(1.0, np.float16))")


@bite("exercises_complete", "count-check", "start with template-")
def an_exercise_of_another_notebook(nb):
    cell = cell_of(nb, "count-check")
    cell["source"] = cell["source"].replace("template-2", "01-2")
    cell["outputs"][0]["text"] = "01-2: correct\n"


@bite("exercises_complete", "practise", "grade_id count-check is used twice")
def one_grade_id_twice(nb):
    cell_of(nb, "last-check")["metadata"]["nbgrader"]["grade_id"] = "count-check"


@bite("exercises_complete", "count-answer", "never closed")
def an_unmatched_marker(nb):
    cell = cell_of(nb, "count-answer")
    cell["source"] = cell["source"].replace("    ### END SOLUTION", "")


@bite(
    "answers_stay_local",
    "last-answer",
    "uses count, the answer of cell count-answer",
)
def a_cell_that_leans_on_an_answer(nb):
    cell = cell_of(nb, "last-answer")
    cell["source"] = cell["source"].replace("return np", "return count(1, dtype) or np")


@bite("numbers_are_shown", "halve-shown", "says '37.5 %'")
def a_typed_in_number(nb):
    add_text(nb, "halve-shown", " That is 37.5 % more.")


@bite("numbers_are_shown", "halve-result", "says '1,074'")
def a_number_that_is_off_by_one(nb):
    cell = cell_of(nb, "halve-result")
    cell["source"] = cell["source"].replace("1,075", "1,074")


@bite("numbers_are_shown", "practise", "says '1,075'")
def a_number_of_another_section(nb):
    add_text(nb, "practise", " Not 1,075.")


@bite("numbers_are_shown", "halve-shown", "says '0.25 ms'")
def a_number_that_only_a_live_cell_shows(nb):
    cell = cell_of(nb, "halve-ratio")
    cell["metadata"]["tags"] = [editions.LIVE_TAG]
    cell["source"] += "\nassert ratio > 1"
    add_output(nb, "halve-ratio", "0.25 ms\n")
    add_text(nb, "halve-shown", " It took 0.25 ms.")
