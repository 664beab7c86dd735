"""Installs the library to a tree of its own and builds programs against it as strangers would: CMake's find_package and
pkg-config, C and C++, shared and static, from a place the tree was moved to. Every program is run.

Usage: install_test.py BUILD_DIR. Standard library only."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def pkg_config(tree, *arguments):
    return run("pkg-config", *arguments, "kvarn", env={**os.environ, "PKG_CONFIG_PATH": str(tree / "lib" / "pkgconfig")}).split()


def with_cmake(tree, work):
    """The examples, configured on their own: find_package(kvarn)."""
    run("cmake", "-S", ROOT / "examples", "-B", work, f"-DCMAKE_PREFIX_PATH={tree}", "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "--build", work)
    assert "4.5000 bits a value" in run(work / "encode_rows")
    assert "and all samples" in run(work / "best_of_n", 3, 600, 20, 2)
    resumes(work / "resume", work)


def static_with_cmake(tree, work):
    work.mkdir()
    (work / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(stranger LANGUAGES C CXX)\nset(kvarn_USE_STATIC_LIBS ON)\n"
        "find_package(kvarn 0.1 REQUIRED)\nadd_executable(stranger stranger.c)\n"
        "target_link_libraries(stranger PRIVATE kvarn::kvarn m)\n", encoding="utf-8")
    shutil.copy(ROOT / "examples" / "encode_rows.c", work / "stranger.c")
    run("cmake", "-S", work, "-B", work / "build", f"-DCMAKE_PREFIX_PATH={tree}")
    run("cmake", "--build", work / "build")
    assert "4.5000 bits a value" in run(work / "build" / "stranger")
    assert "libkvarn" not in run("ldd", work / "build" / "stranger")


def with_pkg_config(tree, work):
    work.mkdir()
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tree / "lib")}
    run("cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", ROOT / "examples" / "encode_rows.c", "-o", work / "shared",
        *pkg_config(tree, "--cflags", "--libs"), "-lm")
    assert "4.5000 bits a value" in run(work / "shared", env=environment)
    run("c++", "-std=c++20", "-pedantic", "-Wall", "-Wextra", "-Werror", ROOT / "examples" / "best_of_n.cpp", "-o", work / "cpp",
        *pkg_config(tree, "--cflags", "--libs"))
    assert "and all samples" in run(work / "cpp", 2, 300, 20, 2, env=environment)
    flags = pkg_config(tree, "--cflags", "--libs", "--static")
    flags[flags.index("-lkvarn")] = "-l:libkvarn.a"
    run("cc", "-std=c99", ROOT / "examples" / "encode_rows.c", "-o", work / "static", *flags)
    assert "4.5000 bits a value" in run(work / "static")


def resumes(program, work, **options):
    """A C program saves a context; the next process maps it, goes on with the same bits, and appends a longer one."""
    file = work / "context.kvarn"
    first, second, third = (run(program, file, **options).splitlines() for _ in range(3))
    assert first[0].startswith("read 900 tokens") and second[0] == "resumed 900 tokens" and third[0] == "resumed 964 tokens"
    assert len(first) == 3 and first[1:] == second[1:3]
    assert re.fullmatch(r"save 2: \d new tiles, appended", second[3]), second


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.S | re.M)


def guide(tree, work, name, language):
    """The program that the snippets of a page make together, built by the page's own CMake file; prints what the page says."""
    page = (ROOT / "docs" / "guide" / name).read_text(encoding="utf-8")
    snippets, (lists,), (expected,) = blocks(page, language), blocks(page, "cmake"), blocks(page, "text")
    assert len(snippets) >= 3
    work.mkdir()
    # A page may go on after main: what follows is compiled as well.
    (work / f"program.{language}").write_text("\n".join(snippets), encoding="utf-8")
    strict = "-Wall -Wextra -Wpedantic -Werror -Wno-unused-function"
    (work / "CMakeLists.txt").write_text(lists, encoding="utf-8")
    run("cmake", "-S", work, "-B", work / "build", f"-DCMAKE_PREFIX_PATH={tree}", f"-DCMAKE_C_FLAGS=-std=c99 {strict}",
        f"-DCMAKE_CXX_FLAGS={strict}")
    run("cmake", "--build", work / "build")
    printed = run(work / "build" / "guide")
    assert printed == expected, f"{name} says\n{expected}and the program prints\n{printed}"


def headers_stand_alone(tree, work):
    """Each header compiles alone, twice, as strictly as compilers can be; kvarn.h in C99 and in C++."""
    work.mkdir()
    headers = sorted((tree / "include" / "kvarn").iterdir())
    assert len(headers) >= 6
    strict = ("-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-fsyntax-only", f"-I{tree / 'include'}")
    for header in headers:
        twice = f"#include <kvarn/{header.name}>\n" * 2
        for suffix, compiler in ((".c", ("cc", "-std=c99")), (".cpp", ("c++", "-std=c++20", "-fno-exceptions", "-fno-rtti"))):
            if suffix == ".c" and header.suffix == ".hpp":
                continue
            source = work / (header.name.replace(".", "_") + suffix)
            source.write_text(twice + "typedef int not_empty;\n", encoding="utf-8")
            run(*compiler, *strict, source)


def nothing_foreign(tree):
    """The library needs the C and C++ runtimes alone, is small, and the tree knows nothing of where it was made."""
    library = tree / "lib" / "libkvarn.so"
    needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", library))
    foreign = [name for name in needed if not re.match(r"(libstdc\+\+|libm|libgcc_s|libc|ld-linux.*)\.so", name)]
    assert foreign == [], foreign
    stripped = tree / "stripped.so"
    run("strip", "-o", stripped, library)
    assert stripped.stat().st_size < 1_000_000, stripped.stat().st_size
    stripped.unlink()
    for text in [*tree.rglob("*.cmake"), *tree.rglob("*.pc")]:
        assert str(ROOT) not in text.read_text(encoding="utf-8"), text


def main():
    build = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(scratch)
        run("cmake", "--install", build, "--prefix", work / "made", "--component", "library")
        tree = work / "moved"
        (work / "made").rename(tree)
        nothing_foreign(tree)
        headers_stand_alone(tree, work / "headers")
        with_cmake(tree, work / "examples")
        static_with_cmake(tree, work / "stranger")
        with_pkg_config(tree, work / "plain")
        guide(tree, work / "c", "c.md", "c")
        guide(tree, work / "cpp", "cpp.md", "cpp")


main()
