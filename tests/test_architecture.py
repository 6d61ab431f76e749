"""The direction of imports, read from the source: files import downwards only, and the reading half
never imports a framework."""

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "hiddencost"
ORDER = (
    "errors",
    "records",
    "columns",
    "formatting",
    "grid",
    "store",
    "kinds",
    "stats",
    "environment",
    "recommended",
    "foretold",
    "doing",
    "turns",
    "claims",
    "gate",
    "plots",
    "page",
    "readme",
    "graph",
    "own",
    "inputs",
    "models",
    "stacks",
    "points",
    "plan",
    "layers",
    "chain",
    "strategies",
    "backends",
    "extracting",
    "streaming",
    "survey",
    "peers",
    "measure",
    "room",
    "rotation",
    "growth",
    "lookups",
    "memory",
    "forecast",
    "suites",
    "nursery",
    "trees",
    "keeping",
    "supervise",
    "cluster",
    "cli",
)
GROUND = ORDER[: ORDER.index("claims")]
READING = ("claims", "gate", "plots", "page", "readme")
MEASURING = ORDER[ORDER.index("graph") : ORDER.index("cli")]
FRAMEWORKS = {"keras", "keras_hub", "keras_nlp", "tensorflow", "jax", "torch"}


def module_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path):
    """Top-level modules of this project that a file imports, and other packages."""
    own, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
            if node.module == "hiddencost":
                names = [f"hiddencost.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] != "hiddencost":
                others.add(parts[0])
            elif len(parts) > 1 and not parts[1].startswith("_"):
                own.add(parts[1])
    return own, others


def files():
    return [path for path in sorted(SOURCE.rglob("*.py")) if path.parent != SOURCE or path.stem != "__init__"]


def test_every_file_has_a_place_in_the_order():
    assert {module_of(path) for path in files()} == set(ORDER)


def test_files_import_only_from_above():
    for path in files():
        mine = module_of(path)
        for other in imports(path)[0] - {mine}:
            assert ORDER.index(other) < ORDER.index(mine), (
                f"{path.name} imports {other}, which stands below it"
            )


def test_ground_and_reading_half_import_no_framework():
    for path in files():
        if module_of(path) in GROUND + READING:
            assert not imports(path)[1] & FRAMEWORKS, path


def test_the_two_halves_do_not_know_each_other():
    for path in files():
        if module_of(path) in READING:
            assert not imports(path)[0] & set(MEASURING), path
        if module_of(path) in MEASURING:
            assert not imports(path)[0] & set(READING), path


def test_measuring_files_import_frameworks_only_inside_functions():
    for path in files():
        if path.stem in ("layers", "handwritten"):  # classes of Keras: imported inside functions themselves
            continue
        top = {
            alias.name.split(".")[0]
            for node in ast.parse(path.read_text()).body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module)])
        }
        assert not top & FRAMEWORKS, path


def test_a_report_is_written_without_importing_a_framework(tmp_path):
    code = (
        "import sys; from hiddencost import cli, gate, page, plots, claims; "
        f"print(sorted({FRAMEWORKS!r} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
