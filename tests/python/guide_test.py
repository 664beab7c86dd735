"""docs/guide/python.md: its snippets run, in order, as one program, and print what the page says."""

import pathlib
import re
import subprocess
import sys

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "guide" / "python.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M)


def test_snippets_print_what_the_page_says(tmp_path):
    snippets, (expected,) = blocks("python"), blocks("text")
    assert len(snippets) >= 4
    program = tmp_path / "guide.py"
    program.write_text("\n".join(snippets), encoding="utf-8")
    done = subprocess.run([sys.executable, "-B", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected
