"""Breaks lines of `stats` and `gate` on purpose, one at a time: their tests must notice each break.

    python tests/mutants.py

The source is copied, and the copy is broken. Exits with 1 when a break goes unnoticed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ("test_stats.py", "test_gate.py")
MUTANTS = (
    ("stats.py", "0.5 + CONFIDENCE / 2) * standard_error", "CONFIDENCE) * standard_error"),
    (
        "stats.py",
        "if len(means) < FEWEST_BLOCKS:\n        return center",
        "if len(means) < 2:\n        return center",
    ),
    ("stats.py", "for value in means) / (len(means) - 1)", "for value in means) / len(means)"),
    ("stats.py", "_quantile(degrees, POWER)", "_quantile(degrees, 0.5)"),
    ("stats.py", "all(stored) and case.group == against.group", "all(stored)"),
    ("stats.py", "stored[0][i] - stored[1][j]", "stored[1][j] - stored[0][i]"),
    ("stats.py", "order = order[last]", "order = order[:]"),
    ("stats.py", "[0.0, *map(float, found)]", "[0.0, *map(float, -found)]"),
    ("stats.py", "= min(1.0, twin.low), max(1.0, twin.high)", "= twin.low, twin.high"),
    ("stats.py", "if comparison.low > high:", "if comparison.ratio > high:"),
    ("stats.py", "if comparison.high < low:", "if comparison.ratio < low:"),
    ("stats.py", "return math.floor(crossing) + 1", "return math.floor(crossing)"),
    ("stats.py", "values[SETTLED - 1 :]", "values[SETTLED:]"),
    ("stats.py", "LOSS * (spread / wanted) ** 2", "LOSS * (spread / wanted)"),
    ("gate/judging.py", "if values.size < FEWEST_BLOCKS:", "if values.size < 2:"),
    ("gate/judging.py", "if min(before.size, after.size) < FEWEST_BLOCKS:", "if after.size < 2:"),
    ("gate/judging.py", "-shift / self.error", "shift / self.error"),
    ("gate/judging.py", "after.mean() - before.mean()", "before.mean() - after.mean()"),
    ("gate/judging.py", "spread**2 / sum(", "spread / sum("),
    ("gate/judging.py", "(len(chances) - rank) * chances[index]", "chances[index]"),
    ("gate/judging.py", "highest = max(highest, min(1.0,", "highest = max(0.0, min(1.0,"),
    ("gate/judging.py", "slower < alpha and estimate.shift > least", "slower < alpha"),
    ("gate/judging.py", "if slower < alpha and estimate", "if estimate"),
    ("gate/judging.py", "elif beyond_noise + margin > least:", "elif beyond_noise + margin > 10:"),
    ("gate/judging.py", "CONFIRMED = SURE / SUSPECT", "CONFIRMED = SUSPECT"),
    ("gate/judging.py", "elif faster < min(alpha, SURE)", "elif faster < alpha"),
    ("gate/judging.py", "power = POWER if alpha <= SURE else math.sqrt(POWER)", "power = POWER"),
    ("gate/judging.py", "after - before > GRAIN_BYTES.get(evidence.metric, 0)", "after - before > 0"),
    ("gate/judging.py", "after > before * (1 + threshold)", "after > before * (1 + 2 * threshold)"),
    ("gate/judging.py", "holm([estimate.chance(-estimate.shift)", "holm([estimate.chance(estimate.shift)"),
    ("gate/outcome.py", 'REGRESSIONS = ("slower", "larger")', 'REGRESSIONS = ("slower",)'),
    ("gate/outcome.py", "return MISSING if any", "return NO_REGRESSION if any"),
    ("gate/outcome.py", "return NOTHING_MEASURED", "return NO_REGRESSION"),
    ("gate/outcome.py", "not (change.timed and self.timings_advisory)", "True"),
    ("gate/outcome.py", '(*REGRESSIONS, "unclear") if self.strict', "REGRESSIONS if self.strict"),
    ("gate/outcome.py", "elif second.word in REGRESSIONS:", "elif second.word:"),
    ("gate/missing.py", "if reason and not skipped:", "if reason and skipped:"),
    ("gate/missing.py", "(not reason or OTHER_SIDE in reason)", "(reason and OTHER_SIDE not in reason)"),
    ("gate/missing.py", "if (case, metric) not in after and", "if (case, metric) in after and"),
    ("gate/missing.py", "found.get((m.case, m.metric)) or reason", "reason"),
    ("gate/sides.py", "found[AFTER, case] - found[BEFORE, case]", "found[AFTER, case]"),
    ("gate/sides.py", "max(mine), max(theirs)", "max(mine), max(mine)"),
    ("gate/sides.py", "key=lambda call: call[0]", "key=lambda call: call[1][0]"),
    ("gate/lookups.py", "case.position == case.layers - 1", "case.position == 0"),
    ("gate/baseline.py", 'run.ending.how != "complete"', 'run.ending.how == ""'),
    ("gate/baseline.py", "if version != SCHEMA_VERSION:", "if version < SCHEMA_VERSION:"),
    ("gate/baseline.py", "if before != after:\n        yield (", "if False:\n        yield ("),
    ("gate/baseline.py", "[] if part else list(_differences(", "list(_differences("),
    ("gate/baseline.py", "if not run.environments:\n        raise", "if False:\n        raise"),
    ("gate/lookups.py", "for one in rounds if one > 0", "for one in rounds[:1] if one > 0"),
    ("gate/missing.py", "(*METRIC_OF_SUITE.values(), *EXACT)", '("seconds", "lookup_seconds", *EXACT)'),
    ("gate/sides.py", "for way in (*SLOPED, UNIT):", "for way in SLOPED:"),
    (
        "gate/baseline.py",
        'yield f"{what} were {before} in the baseline',
        'f"{what} were {before} in the baseline',
    ),
)


def survives(mutant):
    """Whether no test fails on the broken copy."""
    name, old, new = mutant
    with tempfile.TemporaryDirectory() as folder:
        for part in ("src", "tests", "bench"):
            shutil.copytree(ROOT / part, Path(folder) / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        path = Path(folder) / "src" / "hiddencost" / name
        text = path.read_text()
        if text.count(old) != 1:
            sys.exit(f"{name}: {text.count(old)} places have {old!r}: change it here")
        path.write_text(text.replace(old, new))
        tests = [str(Path(folder) / "tests" / test) for test in TESTS]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", *tests],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(folder) / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
        )
        return done.returncode == 0


def main():
    name, old, _ = MUTANTS[0]
    if not survives((name, old, old)):
        sys.exit("a test fails on the copy of the source as it is: no break could be told from that")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(survives, MUTANTS))
    unnoticed = [mutant for mutant, survived in zip(MUTANTS, found, strict=True) if survived]
    for name, old, new in unnoticed:
        print(f"unnoticed in {name}: {old}  ->  {new}")
    print(f"{len(MUTANTS) - len(unnoticed)} of {len(MUTANTS)} breaks were found by a test")
    sys.exit(bool(unnoticed))


if __name__ == "__main__":
    main()
