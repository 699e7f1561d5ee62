"""nbgrader's settings for a course folder: `make release` puts a copy of this there."""

import re

from mpteach.exercises.hidden import is_right
from nbformat.v4 import new_output
from nbgrader.converters import Autograde
from nbgrader.preprocessors import Execute, NbGraderPreprocessor

HIDDEN = re.compile(r'^show_values\("([^"]+)"', re.MULTILINE)


class JudgeHiddenCases(NbGraderPreprocessor):
    """Take the points of a check whose answer has wrong values on the hidden cases."""

    def preprocess_cell(self, cell, resources, index):
        """Put an error before the outputs of `cell`, which is what costs its points."""
        graded = cell.metadata.get("nbgrader", {}).get("grade")
        asked = HIDDEN.search(cell.source)
        if graded and asked and not is_right(asked[1], _printed(cell)):
            said = f"AssertionError: {asked[1]} is not right on the hidden cases."
            error = new_output(
                "error", ename="AssertionError", evalue=said, traceback=[said]
            )
            cell.outputs.insert(0, error)
        return cell, resources


def _printed(cell):
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout")


c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "mpteach"
# What `make lab` puts in place of solutions; nbgrader's own stub would stop Run All.
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\n..."}
c.ClearSolutions.text_stub = "*Your answer here.*"
# A deleted check comes back, with its hidden cases.
c.OverwriteCells.add_missing_cells = True
# Seconds a cell; the slowest of the course's own takes a tenth of it.
c.Execute.timeout = 120
steps = list(Autograde.autograde_preprocessors.default_args[0])
steps.insert(steps.index(Execute) + 1, JudgeHiddenCases)
c.Autograde.autograde_preprocessors = steps
