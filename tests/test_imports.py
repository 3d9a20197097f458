"""The borders between the packages, read from the source: who may import whom, and nothing runs on import."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ADDON = sorted((ROOT / "addon").rglob("*.py"))
CORE = sorted((ROOT / "core").rglob("*.py"))
ENGINE_ONLY = {"torch", "cv2", "smplx", "smplfitter", "safetensors", "scipy"}
BLENDER_ONLY = {"bpy", "mathutils", "bmesh", "gpu", "bl_ext"}


def imported(path: Path) -> set[str]:
    """Return the absolute dotted names a file imports, at any depth of its code."""
    package = path.relative_to(ROOT).parent.parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            names |= {module, *(f"{module}.{alias.name}".lstrip(".") for alias in node.names)}
    return names


def names_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", ADDON, ids=names_of)
def test_addon_imports_no_engine(path: Path) -> None:
    for name in imported(path):
        top = name.split(".")[0]
        assert top not in ENGINE_ONLY, f"{path.name} imports {name}"
        if top == "core" and name != "core":
            assert name == "core.protocol" or name.startswith("core.protocol."), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", CORE, ids=names_of)
def test_core_imports_no_blender(path: Path) -> None:
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & (BLENDER_ONLY | {"addon"})


def test_protocol_is_standard_library_only() -> None:
    tops = {name.split(".")[0] for name in imported(ROOT / "core" / "protocol.py")}
    assert tops <= sys.stdlib_module_names


def test_core_has_no_import_cycles() -> None:
    def module_name(path: Path) -> str:
        parts = path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    modules = {module_name(p): p for p in CORE}
    graph = {name: top_level(path, modules) - {name} for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def top_level(path: Path, modules: dict[str, Path]) -> set[str]:
    """Return the project's modules that a file imports when it is itself imported (not inside functions)."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    package = path.relative_to(ROOT).parent.parts
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = list(package[: len(package) - node.level + 1]) if node.level else []
        module = ".".join(base + ([node.module] if node.module else []))
        submodules = {f"{module}.{alias.name}" for alias in node.names}
        found |= submodules if submodules <= set(modules) else {module} | submodules
    return found & set(modules)


@pytest.mark.parametrize("path", ADDON + CORE, ids=names_of)
def test_no_forbidden_constructs(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except at line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}, f"{node.func.id} at line {node.lineno}"


@pytest.mark.parametrize("path", [p for p in CORE if p.name != "__main__.py" and "cli" not in p.parts], ids=names_of)
def test_core_is_silent_and_reads_no_environment(path: Path) -> None:
    """Only the command line prints and reads argv or the environment; the server takes its token from there too."""
    if "make" in path.parts or path.name in {"server.py", "cli.py"}:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"print at line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("sys", "argv"), ("os", "environ")}, f"line {node.lineno}"
