"""Build the decks of all chapters, or of the notebooks named, in build/slides."""

import sys
from pathlib import Path

from mpteach import course
from mpteach.errors import InputError
from mpteach.slides.pages import FOLDER, build


def main(paths: list[str]) -> int:
    """Build the decks, say where they are; return 2, with a sentence, if one fails."""
    try:
        chosen = [Path(path) for path in paths] or [
            chapter.path for chapter in course.chapters()
        ]
        built = build(chosen, FOLDER)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"{error.filename or FOLDER} cannot be written ({error.strerror}): make "
            "its folder writable, or free some space.",
            file=sys.stderr,
        )
        return 2
    print(f"{len(built)} decks are in {FOLDER}: open index.html there in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
