"""The package: the stubs say what the module holds, the version is that of the headers, the wheel has what it needs."""

import ast
import importlib.metadata
import inspect
import pathlib
import re

import kvarn
import kvarn._kvarn as compiled
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = pathlib.Path(kvarn.__file__).parent
STUBS = ast.parse((PACKAGE / "_kvarn.pyi").read_text(encoding="utf-8"))
(INSTALLED,) = importlib.metadata.distributions(name="kvarn", path=[str(PACKAGE.parent)])
CLASSES = {node.name: node for node in STUBS.body if isinstance(node, ast.ClassDef)}


def names_of(body):
    """What the statements of a module or a class define."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.AnnAssign):
            yield node.target.id


def test_stubs_name_what_the_module_holds():
    held = {name for name in vars(compiled) if not name.startswith("_")} | {"__version__"}
    assert set(names_of(STUBS.body)) == held == set(kvarn.__all__)


@pytest.mark.parametrize("name", CLASSES)
def test_stubs_name_the_members_of_each_class(name):
    own = {"__init__", "__enter__", "__exit__"}
    stubbed = set(names_of(CLASSES[name].body)) - {"__init__"}
    held = {member for member in vars(getattr(kvarn, name)) if not member.startswith("_") or member in own} - {"__init__"}
    assert stubbed == held


@pytest.mark.parametrize("name", CLASSES)
def test_stubs_have_the_parameters_of_each_method(name):
    for node in CLASSES[name].body:
        if not isinstance(node, ast.FunctionDef) or node.decorator_list or node.name.startswith("__"):
            continue
        signature = inspect.getdoc(getattr(getattr(kvarn, name), node.name)).splitlines()[0]
        held = re.findall(r"[(,] (\w+): ", signature.replace("(", "( "))
        assert [argument.arg for argument in node.args.args][1:] == held[1:], signature


def test_the_version_is_that_of_the_headers():
    header = (ROOT / "include" / "kvarn" / "version.h").read_text(encoding="utf-8")
    parts = [re.search(rf"KVARN_VERSION_{part} (\d+)", header)[1] for part in ("MAJOR", "MINOR", "PATCH")]
    assert kvarn.__version__ == INSTALLED.version == ".".join(parts)
    assert kvarn.kernels() != ""


def test_type_checkers_find_the_stubs():
    assert (PACKAGE / "py.typed").is_file()
    files = {str(file) for file in INSTALLED.files}
    assert {"kvarn/__init__.py", "kvarn/_kvarn.pyi", "kvarn/py.typed"} <= files
