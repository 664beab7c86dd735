"""The C interface as programs were built against it: every declaration of its headers stands in abi.txt, word for word, and the
shared library exports these functions and no others. A removed or changed line breaks programs; so does a symbol that is not
there. `abi_test.py --write LIST HEADER...` writes the list anew, for a change that is meant.

Usage: abi_test.py LIST NM LIBRARY HEADER.... Standard library only."""

import pathlib
import re
import subprocess
import sys

COMMENT = re.compile(r"/\*.*?\*/", re.S)
DEFINE = re.compile(r"^#define (KVARN_[A-Z0-9_]+(?:\([^)]*\))?)[ \t]+(.+)$", re.M)
NOT_INTERFACE = ("KVARN_API",)


def squeeze(text):
    return re.sub(r"\s+", " ", text).strip()


def declarations(header):
    """The declarations of a header, one a line, without comments; order is that of the header."""
    text = COMMENT.sub(" ", header).replace("\\\n", " ")
    found = [f"#define {name} {squeeze(value)}" for name, value in DEFINE.findall(text) if name not in NOT_INTERFACE]
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
    text = text.replace('extern "C" {', " ").replace("KVARN_API", " ")
    depth, start = 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "{(") - (letter in "})")
        if letter == ";" and depth == 0:
            found.append(squeeze(text[start:at + 1]))
            start = at + 1
    return found


def function_names(lines):
    found = (re.match(r"^[^{(]*?(kvarn_\w+)\(", line) for line in lines if not line.startswith(("typedef", "#define")))
    return {match[1] for match in found if match}


def undocumented(header):
    """First lines of functions and types with no comment above them; those right below a declaration share its comment."""
    lines = header.splitlines()
    starts = [at for at, line in enumerate(lines) if line.startswith(("KVARN_API", "typedef"))]
    return [lines[at] for at in starts if not lines[at - 1].rstrip().endswith(("*/", ";"))]


def exported(listing):
    """Names of an nm -D listing, without versions; version nodes themselves are left out."""
    names = set()
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) >= 3 and fields[-2] != "A":
            names.add(fields[-1].split("@")[0])
    return names


def self_check():
    header = '/* a; */ #include <x>\n#define KVARN_X 1u /* b */\ntypedef struct kvarn_a { int b; } kvarn_a;\n' \
             'KVARN_API int kvarn_f(\n  int a);\n'
    lines = declarations(header)
    assert lines == ["#define KVARN_X 1u", "typedef struct kvarn_a { int b; } kvarn_a;", "int kvarn_f( int a);"], lines
    assert function_names(lines) == {"kvarn_f"}
    assert undocumented("/* a */\ntypedef int kvarn_a;\ntypedef int kvarn_b;\n\nKVARN_API int kvarn_f(void);\n") == [
        "KVARN_API int kvarn_f(void);"]
    assert exported("0 A KVARN_0\n1 T kvarn_f@@KVARN_0\n") == {"kvarn_f"}


def differences(header_lines, list_lines, names):
    wrong = [f"removed or changed: {line}" for line in list_lines if line not in header_lines]
    wrong += [f"not in the list: {line}" for line in header_lines if line not in list_lines]
    declared = function_names(header_lines)
    wrong += [f"declared, not exported: {name}" for name in sorted(declared - names)]
    wrong += [f"exported, not declared: {name}" for name in sorted(names - declared)]
    return wrong


def read_headers(names):
    """The text of each, and the declarations of all."""
    texts = [pathlib.Path(name).read_text(encoding="utf-8") for name in names]
    return texts, [line for text in texts for line in declarations(text)]


def main():
    self_check()
    if sys.argv[1] == "--write":
        pathlib.Path(sys.argv[2]).write_text("\n".join(read_headers(sys.argv[3:])[1]) + "\n", encoding="utf-8")
        return
    target, nm, library = sys.argv[1:4]
    texts, lines = read_headers(sys.argv[4:])
    listed = pathlib.Path(target).read_text(encoding="utf-8").splitlines()
    listing = subprocess.run([nm, "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    wrong = differences(lines, listed, exported(listing)) + [f"not documented: {line}" for text in texts for line in undocumented(text)]
    if wrong or len(lines) < 50:
        sys.exit("\n".join(wrong) or "the header was not understood")


main()
