"""Includes point one way: a folder of src/ includes itself and what lies below it, engines and third-party code nowhere.

The arrows are those of the architecture; docs/decisions/ says why attention lies below the cache. Standard library only.
"""

import pathlib
import re
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = (".hpp", ".cpp", ".h", ".c")

# folder: the folders right below it; what is below those may be included as well.
ARROWS = {
    "base": [],
    "format": ["base"],
    "reference": ["format"],
    "simd": ["base"],
    "kernels": ["simd", "format"],
    "codec": ["format", "kernels"],
    "attention": ["format", "kernels"],
    "cache": ["codec", "attention"],
    "session": ["format", "cache"],
    "capi": ["session", "cache"],
}
# Folders outside src/ and what of src/ they may include directly. `reference` is for tests alone.
OUTSIDE = {"hosts": ["session"], "apps": [], "bench": ["cache"], "bindings": []}
# Folders of src/ that they may include beside these, without what is below them.
DIRECT = {"apps": {"session"}}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
# What no file of src/ may include: engines, languages, programs' libraries, streams.
FOREIGN = re.compile(r"^(ggml|gguf|llama|Python\.h|pybind11/|CLI/|fmt/|nlohmann/|iostream$|torch/|cuda)")
LINK = re.compile(r"target_link_libraries\(\s*kvarn_(\w+)\s+([^)]*)\)")


def below(folder):
    """The folder and everything it may include."""
    found = {folder}
    for lower in ARROWS.get(folder, []):
        found |= below(lower)
    return found


def includes(path):
    return INCLUDE.findall(path.read_text(encoding="utf-8"))


def sources(directory):
    return sorted(path for path in directory.rglob("*") if path.suffix in SOURCES) if directory.is_dir() else []


def src_violations(root):
    """Includes of src/ that point upwards, to an unknown folder, or out of the library."""
    wrong = []
    for path in sources(root / "src"):
        name = path.relative_to(root)
        folder = name.parts[1]
        if folder not in ARROWS:
            wrong.append(f"{name}: folder {folder} has no place in the architecture")
            continue
        for kind, target in includes(path):
            if FOREIGN.match(target):
                wrong.append(f"{name}: src/ knows nothing of {target}")
            elif kind == '"' and target.split("/")[0] not in below(folder):
                wrong.append(f"{name}: {folder} may not include {target}")
    return wrong


def outside_violations(root):
    """Includes of hosts/ and apps/ that reach further into src/ than they may."""
    wrong = []
    for place, allowed_folders in OUTSIDE.items():
        allowed = set().union(DIRECT.get(place, set()), *(below(folder) for folder in allowed_folders))
        for path in sources(root / place):
            for _, target in includes(path):
                folder = target.split("/")[0]
                if folder in ARROWS and "/" in target and folder not in allowed:
                    wrong.append(f"{path.relative_to(root)}: {place} may not include {target}")
    return wrong


def link_violations(root):
    """Libraries of src/ that link what they may not include."""
    wrong = []
    for path in sorted((root / "src").glob("*/CMakeLists.txt")):
        folder = path.parent.name
        for name, rest in LINK.findall(path.read_text(encoding="utf-8")):
            linked = {word.removeprefix("kvarn_") for word in rest.split() if word.startswith("kvarn_")} - {"flags"}
            for lower in linked & set(ARROWS):
                if lower not in below(folder):
                    wrong.append(f"src/{folder}/CMakeLists.txt: kvarn_{name} may not link kvarn_{lower}")
    return wrong


def violations(root):
    return src_violations(root) + outside_violations(root) + link_violations(root)


class IncludeDirection(unittest.TestCase):
    def violations_of(self, files):
        with tempfile.TemporaryDirectory() as scratch:
            for name, text in files.items():
                path = pathlib.Path(scratch) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            return violations(pathlib.Path(scratch))

    def test_arrows_have_no_cycle(self):
        for folder, lower in ARROWS.items():
            for direct in lower:
                self.assertNotIn(folder, below(direct))

    def test_repository_keeps_the_arrows(self):
        self.assertGreater(len(sources(ROOT / "src")), 10)
        self.assertEqual(violations(ROOT), [])

    def test_downward_and_system_includes_are_accepted(self):
        files = {
            "src/cache/a.hpp": '#include <vector>\n#include "base/half.hpp"\n#include "cache/b.hpp"\n',
            "hosts/engine/a.cpp": '#include "ggml.h"\n#include "cache/a.hpp"\n#include "own_file.hpp"\n',
        }
        self.assertEqual(self.violations_of(files), [])

    def test_upward_include_is_found(self):
        self.assertEqual(len(self.violations_of({"src/format/a.hpp": '#include "codec/tile_codec.hpp"\n'})), 1)
        self.assertEqual(len(self.violations_of({"src/attention/a.cpp": '  # include "cache/kv_cache.hpp"\n'})), 1)

    def test_reference_outside_the_tests_is_found(self):
        self.assertEqual(len(self.violations_of({"src/codec/a.cpp": '#include "reference/record.hpp"\n'})), 1)
        self.assertEqual(len(self.violations_of({"hosts/engine/a.cpp": '#include "reference/record.hpp"\n'})), 1)

    def test_engine_include_and_unknown_folder_are_found(self):
        self.assertEqual(len(self.violations_of({"src/cache/a.cpp": "#include <ggml.h>\n"})), 1)
        self.assertEqual(len(self.violations_of({"src/cache/a.cpp": '#include "llama.h"\n'})), 1)
        self.assertEqual(len(self.violations_of({"src/cache/a.cpp": '#include "kv_cache.hpp"\n'})), 1)
        self.assertEqual(len(self.violations_of({"src/misc/a.cpp": ""})), 1)

    def test_program_that_reaches_into_the_library_is_found(self):
        self.assertEqual(len(self.violations_of({"apps/kvarn/a.cpp": '#include "cache/kv_cache.hpp"\n'})), 1)

    def test_upward_link_is_found(self):
        text = "target_link_libraries(kvarn_format INTERFACE kvarn_base\n  kvarn_cache)\n"
        self.assertEqual(len(self.violations_of({"src/format/CMakeLists.txt": text})), 1)


if __name__ == "__main__":
    unittest.main()
