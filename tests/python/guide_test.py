"""The pages of docs/guide with Python on them: their snippets run, in order, as one program, and print what the page says."""

import pathlib
import re
import subprocess
import sys

import pytest

GUIDE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "guide"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", (GUIDE / page).read_text(encoding="utf-8"), re.S | re.M)


@pytest.mark.parametrize("page, least", [("python.md", 5), ("agents.md", 1)])
def test_snippets_print_what_the_page_says(page, least, tmp_path):
    snippets, (expected,) = blocks(page, "python"), blocks(page, "text")
    assert len(snippets) >= least
    program = tmp_path / "guide.py"
    program.write_text("\n".join(snippets), encoding="utf-8")
    done = subprocess.run([sys.executable, "-B", program], capture_output=True, text=True, check=False,
                          cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected
