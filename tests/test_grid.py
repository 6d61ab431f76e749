"""Grids: what they plan, and one clear line for everything that is wrong with one."""

import pytest

from hiddencost import grid, suites
from hiddencost.errors import UserError
from hiddencost.grid import checking, planning
from hiddencost.records import OUTPUT, REFERENCE, SINGLE_BLOCK, TWIN, Case

CATALOGUE = checking.anywhere(suites.CATALOGUE)
"""As if all backends were installed, and a GPU were here."""

GOOD = """
name = "t"
[time]
blocks = 3
seconds = 2.0
[[forward]]
model = ["minilm"]
strategy = ["functional_submodel", "on_request"]
points = ["middle", ["block_1", -1]]
mode = ["graph", "predict"]
batch = [2]
length = [16]
"""


def problem(text):
    """The one line that a grid with this text gives."""
    with pytest.raises(UserError) as caught:
        checking.check(grid.parse(text, "g.toml"), CATALOGUE, "grid g.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_product_of_the_axes_led_by_reference_and_twin():
    jobs = planning.timed_jobs(grid.parse(GOOD, "g.toml"))
    assert [job.block for job in jobs] == [0, 1, 2]
    graph = [task.case for task in jobs[0].tasks if task.case.mode == "graph"]
    assert [(case.strategy, case.points) for case in graph] == [
        (REFERENCE, OUTPUT),
        (TWIN, OUTPUT),
        ("functional_submodel", "middle"),
        ("functional_submodel", "block_1,-1"),
        ("on_request", OUTPUT),
        ("on_request", "middle"),
        ("on_request", "block_1,-1"),
    ]
    predict = [task.case for task in jobs[0].tasks if task.case.mode == "predict"]
    assert {case.examples for case in predict} == {8}
    assert all(task.seconds == 2.0 for task in jobs[0].tasks)


def test_a_group_in_two_sections_is_planned_once_with_the_longer_time():
    again = GOOD + GOOD[GOOD.index("[[forward]]") :].replace("length = [16]", "length = [16]\nseconds = 9")
    tasks = planning.timed_jobs(grid.parse(again, "g.toml"))[0].tasks
    assert len(tasks) == len({task.case for task in tasks}) == 14
    assert {task.seconds for task in tasks} == {9.0}


def test_a_case_is_optional_where_every_section_that_plans_it_says_so():
    section = GOOD[GOOD.index("[[forward]]") :]
    optional = section.replace("batch = [2]", "batch = [2, 3]\noptional = true")
    tasks = planning.timed_jobs(grid.parse(GOOD + optional, "g.toml"))[0].tasks
    assert {(task.case.batch, task.optional) for task in tasks} == {(2, False), (3, True)}


def test_memory_jobs_are_a_process_for_each_strategy_and_mode_shapes_ascending():
    text = """
name = "m"
[[memory]]
reading = "heap"
model = ["minilm"]
strategy = ["always_return_all"]
points = ["all"]
mode = ["eager"]
batch = [4, 1]
length = [48, 16]
[[memory]]
reading = "resident"
model = ["minilm"]
strategy = ["always_return_all"]
points = ["all"]
mode = ["eager"]
batch = [4, 1]
length = [16]
"""
    jobs = planning.memory_jobs(grid.parse(text, "g.toml"))
    heap, resident = jobs[:2], jobs[2:]
    assert [job.block for job in jobs] == [100, 101, 102, 103, 104, 105]  # two for the heap, four cases
    assert {task.case.strategy for task in heap[0].tasks} == {REFERENCE, SINGLE_BLOCK}
    shapes = [(task.case.batch, task.case.length) for task in heap[1].tasks]
    assert shapes == [(1, 16), (1, 48), (4, 16), (4, 48)]
    assert [len(job.tasks) for job in resident] == [1, 1, 1, 1]


def test_lookup_positions_are_measured_in_the_largest_model_and_the_last_one_everywhere():
    parsed = grid.parse('name="l"\n[lookup]\nlayers=[12, 101]\npositions=[0.0, 0.5]\n', "g.toml")
    cases = [task.case for task in planning.timed_jobs(parsed)[0].tasks]
    assert {(case.layers, case.position) for case in cases} == {(12, 11), (101, 0), (101, 50), (101, 100)}
    assert len(cases) == 4 * len(planning.LOOKUPS)


def test_dataset_cases_are_timed_with_a_twin_and_read_for_memory_without():
    parsed = grid.parse(
        'name="d"\n[dataset]\nmodel=["minilm"]\nbatch=8\nlength=16\nexamples=[8, 16]\n', "g.toml"
    )
    timed = [task.case for task in planning.timed_jobs(parsed)[0].tasks]
    heap = [task.case for job in planning.memory_jobs(parsed) for task in job.tasks]
    assert sum(case.strategy == TWIN for case in timed) == 2
    assert not any(case.strategy == TWIN for case in heap)
    assert {(case.strategy, case.points, case.reduction) for case in heap} == {
        (REFERENCE, OUTPUT, "none"),
        ("always_return_all", "all", "none"),
        ("functional_submodel", "all", "mean"),
        ("streamed", "all", "none"),
    }


def test_an_override_replaces_the_axis_in_every_section():
    parsed = grid.override(grid.parse(GOOD, "g"), {"batch": [1, 8], "mode": ["xla"]}, {"blocks": 5})
    tasks = planning.timed_jobs(parsed)[0].tasks
    assert {(task.case.batch, task.case.mode) for task in tasks} == {(1, "xla"), (8, "xla")}
    assert parsed.time.blocks == 5


THREE = GOOD.replace("[time]", 'backend = ["tensorflow", "jax", "torch"]\n[time]\nbudget = 30', 1).replace(
    '["graph", "predict"]', '["graph", "jit", "eager_grad"]'
)


def test_each_backend_has_processes_of_its_own_in_turn_and_its_share_of_the_budget():
    jobs = planning.timed_jobs(grid.parse(THREE, "g.toml"))
    names = ["block-0", "block-0-jax", "block-0-torch", "block-1", "block-1-jax", "block-1-torch"]
    assert [job.name for job in jobs[:6]] == names
    assert len(jobs) == 9
    assert {job.time.budget for job in jobs} == {10}
    assert all(task.case.backend == job.backend for job in jobs for task in job.tasks)
    modes = {(task.case.backend, task.case.mode) for job in jobs for task in job.tasks}
    assert modes == {("tensorflow", "graph"), ("jax", "jit"), ("torch", "eager_grad")}


def test_a_backend_without_any_of_the_modes_is_left_out_and_none_at_all_is_refused():
    two = grid.parse(THREE.replace(', "eager_grad"', ""), "g.toml")
    assert {job.backend for job in planning.timed_jobs(two)} == {"tensorflow", "jax"}
    assert {job.time.budget for job in planning.timed_jobs(two)} == {15}
    assert problem(THREE.replace('"tensorflow", "jax", ', "").replace(', "eager_grad"', "")) == (
        "grid g.toml: [forward] mode graph, jit: none that these backends have "
        "(torch has eager, eager_grad, compile, export, predict, train)"
    )


def test_memory_is_read_in_processes_of_each_backend_and_dtype():
    section = GOOD[GOOD.index("[[forward]]") :].replace("[[forward]]", '[[memory]]\nreading = "heap"')
    text = 'name = "m"\nbackend = ["tensorflow", "jax"]\n' + section.replace(
        '["graph", "predict"]', '["eager"]\ndtype = ["float32", "bfloat16"]'
    )
    jobs = planning.memory_jobs(grid.parse(text, "g.toml"))
    found = [{(task.case.backend, task.case.dtype) for task in job.tasks} for job in jobs]
    assert all(len(alike) == 1 for alike in found)
    assert set.union(*found) == {(b, d) for b in ("tensorflow", "jax") for d in ("float32", "bfloat16")}
    assert all(task.case.backend == job.backend for job in jobs for task in job.tasks)


def test_a_device_has_processes_of_its_own_and_its_own_kind_of_memory():
    text = THREE.replace('"tensorflow", "jax", "torch"]', '"tensorflow", "jax"]\ndevice = ["cpu", "gpu"]')
    section = GOOD[GOOD.index("[[forward]]") :].replace('["graph", "predict"]', '["eager"]')
    for reading in ("heap", "resident", "device"):
        text += section.replace("[[forward]]", f'[[memory]]\nreading = "{reading}"')
    planned = grid.parse(text, "g.toml")
    timed = planning.timed_jobs(planned)
    names = ["block-0", "block-0-gpu", "block-0-jax", "block-0-jax-gpu"]
    assert [job.name for job in timed[:4]] == names
    assert {job.time.budget for job in timed} == {7.5}
    read = {(task.suite, task.case.device) for job in planning.memory_jobs(planned) for task in job.tasks}
    assert read == {("memory", "cpu"), ("resident", "cpu"), ("device", "gpu")}
    for job in [*timed, *planning.memory_jobs(planned)]:
        assert {(task.case.backend, task.case.device) for task in job.tasks} == {job.ground}
    overridden = grid.override(planned, {"device": ["gpu"]}, {})
    assert {job.device for job in planning.timed_jobs(overridden)} == {"gpu"}


SHIPPED = sorted((grid.bench_folder() / "grids").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_grid_can_be_run_with_each_of_its_backends_alone(path):
    planned, _ = grid.read(path)
    for backend in planned.backend:
        alone = grid.override(planned, {"backend": [backend]}, {})
        checking.check(alone, checking.anywhere(suites.CATALOGUE), path.name)
        jobs = [*planning.timed_jobs(alone), *planning.memory_jobs(alone)]
        assert {job.backend for job in jobs} == {backend}


def test_programs_are_not_kept_where_first_calls_are_what_is_measured():
    growth = '[growth]\nmodel = ["bert_tiny"]\nmode = ["eager"]\nbatch = 1\nlength = 8\ncalls = 3\n'
    text = GOOD.replace("[time]", "[time]\nkeep_programs = true") + growth
    with pytest.raises(UserError, match=r"keep_programs: not with \[growth\], which times the first call"):
        checking.check(grid.parse(text, "g.toml"), CATALOGUE, "grid g.toml")


def test_a_section_may_name_its_devices():
    text = THREE.replace('"tensorflow", "jax", "torch"]', '"tensorflow", "jax"]\ndevice = ["cpu", "gpu"]')
    planned = grid.parse(text.replace("[[forward]]", '[[forward]]\ndevice = ["gpu"]', 1), "g.toml")
    assert {job.device for job in planning.timed_jobs(planned)} == {"gpu"}
    overridden = grid.override(planned, {"device": ["cpu"]}, {})
    assert overridden.forward == []
    cpu = grid.parse(THREE.replace("[[forward]]", '[[forward]]\ndevice = ["gpu"]', 1), "g.toml")
    line = r"\[\[forward\]\] device 'gpu': not one of the grid's; did you mean 'cpu'\?"
    with pytest.raises(UserError, match=line):
        checking.check(cpu, CATALOGUE, "grid g.toml")


POINTS = """
name = "p"
backend = ["tensorflow", "jax"]
[[points]]
model = ["BertBackbone", "ViTBackbone"]
depth = [2, 3]
[[points]]
model = ["BertBackbone"]
depth = [3]
way = ["listed_attribute"]
backend = ["jax"]
"""


def test_hidden_states_are_looked_for_in_a_process_for_each_backend_way_and_depth():
    jobs = planning.memory_jobs(grid.parse(POINTS, "g.toml"))
    told = [(job.backend, *{(t.case.strategy, t.case.layers) for t in job.tasks}) for job in jobs]
    assert told == [
        ("tensorflow", ("hidden_states", 2)),
        ("tensorflow", ("hidden_states", 3)),
        ("jax", ("hidden_states", 2)),
        ("jax", ("hidden_states", 3)),
        ("jax", ("listed_attribute", 3)),
    ]
    assert [task.case.model for task in jobs[0].tasks] == ["BertBackbone", "ViTBackbone"]
    assert {task.suite for job in jobs for task in job.tasks} == {"points"}
    assert planning.timed_jobs(grid.parse(POINTS, "g.toml")) == []


def test_planned_cases_are_unique_and_in_order():
    jobs = planning.timed_jobs(grid.parse(GOOD, "g.toml"))
    cases = planning.planned(jobs)
    assert len(cases) == 14  # on_request with points is planned in predict too, and told as skipped
    assert cases[0] == Case(model="minilm", strategy=REFERENCE, mode="graph", batch=2, length=16)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            'name = "t"',
            'name = "t"\ndevice = ["gpus"]',
            "grid g.toml: unknown device 'gpus'; did you mean 'gpu'?",
        ),
        ('name = "t"', 'name = "t"\ndevice = []', "grid g.toml: device is empty: nothing would be measured"),
        (
            '"minilm"',
            '"minilmm"',
            "unknown model 'minilmm'; did you mean 'minilm'? "
            "(any KerasHub preset or folder: preset:NAME_OR_FOLDER; your own: package.module:function)",
        ),
        (
            '"on_request"',
            '"on_requests"',
            "grid g.toml: unknown strategy 'on_requests' in [[forward]]; did you mean 'on_request'?",
        ),
        ('"graph"', '"graf"', "grid g.toml: unknown mode 'graf' in [[forward]]; did you mean 'graph'?"),
        ('"middle"', '"midle"', "grid g.toml: unknown point 'midle' in [[forward]]; did you mean 'middle'?"),
        (
            '"block_1"',
            '"blok_1"',
            "grid g.toml: unknown point 'blok_1' in [[forward]]; did you mean 'block_0'?",
        ),
        ("batch = [2]", "batch = [0]", "grid g.toml: [forward] batch 0: must be at least 1"),
        (
            "length = [16]",
            "length = [0]",
            "grid g.toml: [forward] length 0: must be at least 3 (start, one token, end)",
        ),
        (
            "length = [16]",
            "length = [513]",
            "grid g.toml: [forward] length 513: minilm takes at most 512 tokens",
        ),
        ("batch = [2]", "batch = []", "grid g.toml: [[forward]] batch is empty: nothing would be measured"),
        ("blocks = 3", "blocks = 0", "grid g.toml: [time] blocks = 0: must be at least 1"),
        ("blocks = 3", "blocks = 101", "grid g.toml: [time] blocks = 101: must be at most 100"),
        ("seconds = 2.0", "seconds = 0", "grid g.toml: [time] seconds = 0.0: must be above 0"),
        ("seconds = 2.0", "budget = -1", "grid g.toml: [time] budget = -1.0: must be above 0 seconds"),
        ("blocks = 3", "block = 3", "grid g.toml: unknown key 'block' in [time]; did you mean 'blocks'?"),
        ("length =", "lenght =", "grid g.toml: unknown key 'lenght' in [forward]; did you mean 'length'?"),
        ("name =", "nam =", "grid g.toml: unknown key 'nam'; did you mean 'name'?"),
        ("batch = [2]", 'batch = ["2"]', "grid g.toml: Expected `int`, got `str` - at `forward[0].batch[0]`"),
        ("[[forward]]", "[[forward", "grid g.toml: not valid TOML: "),
        (
            "[time]",
            'backend = ["jaxx"]\n[time]',
            "grid g.toml: unknown backend 'jaxx'; did you mean 'jax'?",
        ),
        ("[time]", "backend = []\n[time]", "grid g.toml: backend is empty: nothing would be measured"),
        (
            "batch = [2]",
            'dtype = ["float16"]\nbatch = [2]',
            "grid g.toml: unknown dtype 'float16' in [[forward]]; did you mean 'bfloat16'?",
        ),
    ],
)
def test_a_wrong_grid_gives_one_clear_line(old, new, line):
    assert problem(GOOD.replace(old, new, 1)).startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[lookup]\nlayers=[1]\npositions=[]", "[lookup] layers = [1]: must list numbers of at least 2"),
        ("[lookup]\nlayers=[9]\npositions=[2.0]", "[lookup] positions = [2.0]: shares between 0 and 1"),
        (
            '[growth]\nmodel=["bert_tiny"]\nmode=["predict"]\nbatch=1\nlength=9\ncalls=5',
            "unknown mode 'predict' in [growth]; one of: eager, graph, xla, jit, compile, export",
        ),
        (
            '[dataset]\nmodel=["minilm"]\nbatch=1\nlength=9\nexamples=[]',
            "[dataset] examples = []: must list numbers of at least 1",
        ),
        (
            '[[points]]\nmodel=["BertBackbon"]\ndepth=[3]',
            "unknown model 'BertBackbon' in [[points]]; did you mean 'BertBackbone'?",
        ),
        (
            '[[points]]\nmodel=["BertBackbone"]\ndepth=[3]\nway=["listed"]',
            "unknown way 'listed' in [[points]]; did you mean 'listed_attribute'?",
        ),
        (
            '[[points]]\nmodel=["BertBackbone"]\ndepth=[1]',
            "[[points]] depth = [1]: at least 2 blocks, since nothing repeats in one",
        ),
        (
            "[[points]]\nmodel=[]\ndepth=[3]",
            "[[points]] model is empty: nothing would be looked for",
        ),
        (
            '[[points]]\nmodel=["BertBackbone"]\ndepth=[3]\nbackend=["jax"]',
            "[[points]] backend 'jax': not one of the grid's; one of: tensorflow",
        ),
    ],
)
def test_a_wrong_suite_gives_one_clear_line(text, line):
    assert problem(f'name="s"\n{text}\n') == f"grid g.toml: {line}"


@pytest.mark.parametrize("name", ["smoke", "default", "full", "backends", "points"])
def test_the_grids_that_are_shipped_are_right(name):
    path = grid.grid_path(name)
    parsed, _ = grid.read(path)
    checking.check(parsed, CATALOGUE, str(path))
    assert parsed.name == name


def test_the_default_grid_has_the_lengths_batches_and_blocks_that_it_promises():
    parsed, _ = grid.read(grid.grid_path("default"))
    lengths = {length for section in parsed.forward for length in section.length}
    batches = {batch for section in parsed.forward for batch in section.batch}
    assert {16, 512} <= lengths
    assert len(lengths) >= 4
    assert {1, 32} <= batches
    assert len(batches) >= 4
    assert parsed.time.blocks >= 5


def test_an_unknown_grid_is_told_with_the_nearest_name():
    with pytest.raises(UserError, match="unknown grid 'smok'; did you mean 'smoke'"):
        grid.grid_path("smok")
    with pytest.raises(UserError, match=r"grid file no/such\.toml does not exist"):
        grid.grid_path("no/such.toml")
