"""A forecast: lines through programs of few blocks, checked by one more. The programs here are made by hand;
test_lowering.py has real ones."""

import math
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import pytest
from test_claims import run_of
from test_cli import call, refused

from hiddencost import forecast as forecasts
from hiddencost.errors import UserError
from hiddencost.forecast import Forecast, Line, Way, Work, beyond, forecast, line
from hiddencost.forecast.lowering import Program
from hiddencost.forecast.pace import fitted, pace, timed
from hiddencost.forecast.shapes import SHAPES, device, find, size_bytes
from hiddencost.foretold import DEVICE, HEAP, RUN_HEAP, WORK, Foretold, Held, Large, Timed
from hiddencost.page.foretold import foretold as foretold_on_page
from hiddencost.page.foretold import section
from hiddencost.plots.foretold import draw
from hiddencost.plots.foretold import foretold as foretold_drawn
from hiddencost.records import OUTPUT, REFERENCE, TWIN, Case, Measurement
from hiddencost.stats import Table

MIB, NO_WORK = 2**20, Work(0, 0, 0)


class Made:
    """Ten blocks of 7 flops each, and 3 that lie elsewhere in the model; a state of 4 MiB; a program's work
    takes 20 MiB. bent: flops that a model of five blocks has too many; more: what a program's work takes more
    where it returns all states."""

    name, weights_bytes, max_length = "made", 100 * MIB, None

    def __init__(self, bent=0.0, more=MIB):
        self.bent, self.more = bent, more
        self.points = [SimpleNamespace(name=f"block_{i}", index=i) for i in range(10)]

    def of(self):
        return None, SimpleNamespace(blocks=self.points)

    def selected(self, selection):
        ends = {"embeddings": -1, "middle": 4, "last": 9}
        found = {"all": self.points, "two": self.points[4:6], OUTPUT: []}
        found["final_norm"] = [SimpleNamespace(name="final_norm", index=10)]
        found |= {name: [SimpleNamespace(name=name, index=index)] for name, index in ends.items()}
        return found[selection]

    def payload_bytes(self, selection, rows, length):
        return len(self.selected(selection)) * 4 * MIB

    def kept_bytes(self, selection, rows, length):
        kept = {"all": 40, "middle": 20, "two": 24, "last": 40, "final_norm": 44, OUTPUT: 41}
        return kept[selection] * MIB

    def program(self, selection, rows, length, blocks):
        states = {"all": blocks, "last": 1, "final_norm": 1, OUTPUT: 1}[selection]
        flops = 7.0 * blocks + 3.0 * (selection in (OUTPUT, "final_norm")) + self.bent * (blocks == 5)
        return Program(20 * MIB + (selection == "all") * self.more, states * 4 * MIB, flops, 2 * flops)

    def block(self, rows, length):
        return Program(18 * MIB, 4 * MIB, 7.0, 14.0), 30 * MIB


def ways(found):
    return {(way.strategy, way.mode): way for way in found.ways}


def test_a_line_goes_through_two_programs_and_is_checked_by_a_third():
    programs = {2: Program(0, 0, 17, 0), 3: Program(0, 0, 24, 0), 5: Program(0, 0, 40, 0)}
    found = line(programs, lambda program: program.flops)
    assert (found.at_none, found.each, found.at(10)) == (3, 7, 73)
    assert found.missed == 2 / 40
    assert line(programs, lambda program: program.temp_bytes).missed == 0


def test_each_way_has_its_payload_floor_peak_and_share_of_a_pass():
    found = forecast(Made(), "middle", 4, 16)
    assert (found.weights_bytes, found.blocks, found.points, found.missed) == (100 * MIB, 10, 1, 0)
    assert [(way.strategy, way.mode) for way in found.ways] == [
        *((name, "jit") for name in ("final_only", "functional_submodel", "always_return_all")),
        ("final_only", "eager"),
        *((name, "eager") for name in ("functional_submodel", "functional_freed", "always_return_all")),
    ]
    told = [[size / MIB for size in (w.payload_bytes, w.floor_bytes, w.peak_bytes)] for w in found.ways]
    assert told == [
        [4, 22, 24],  # of jit: a block takes 18, the program 20, and 21 where it returns all
        [4, 22, 24],
        [40, 58, 61],
        [4, 30, 67],  # of eager: a block takes 26 beside what it returns
        [4, 30, 46],
        [4, 30, 30],
        [40, 66, 66],
    ]
    assert [way.passes for way in found.ways] == [1, 35 / 73, 70 / 73, 1, 35 / 73, 35 / 73, 70 / 73]
    assert [way.work for way in found.ways[:3]] == [Work(10, 73, 140), Work(5, 35, 70), Work(10, 70, 140)]


def test_the_leanest_way_has_the_lowest_peak_and_then_the_fewest_operations():
    found = forecast(Made(), "middle", 4, 16)
    assert [found.leanest(mode).strategy for mode in ("jit", "eager")] == [
        "functional_submodel",
        "functional_freed",
    ]
    alike = [
        Way(name, "jit", 0, 0, 7, passes, NO_WORK) for name, passes in (("a", 1.0), ("b", 0.5), ("c", 0.9))
    ]
    plain = Way(REFERENCE, "jit", 0, 0, 1, 1.0, NO_WORK)
    assert Forecast(0, 1, 1, (plain, *alike), 0.0).leanest("jit").strategy == "b"


def test_several_states_take_the_larger_of_the_programs_for_one_and_for_all_and_all_take_their_own():
    for more, selection, right in ((1, "two", 8 + 21), (-5, "two", 8 + 20), (-5, "all", 40 + 15)):
        found = ways(forecast(Made(more=more * MIB), selection, 1, 1))
        assert found["functional_submodel", "jit"].peak_bytes == right * MIB


def test_what_a_call_takes_beyond_the_plan_grows_with_the_blocks_that_run_and_not_in_eager():
    taken = Line(3 * MIB, 0.5 * MIB)
    found, plain = (ways(forecast(Made(), "middle", 4, 16, *more)) for more in ((taken,), ()))
    added = {way: (found[way].peak_bytes - plain[way].peak_bytes) / MIB for way in found}
    assert {way: more for way, more in added.items() if more} == {
        ("final_only", "jit"): 8,  # 10 blocks
        ("functional_submodel", "jit"): 5.5,  # 5
        ("always_return_all", "jit"): 8,
    }


def test_the_normed_state_is_after_the_last_block_and_not_among_all():
    found = ways(forecast(Made(), "final_norm", 1, 1))
    assert found["functional_submodel", "jit"].passes == 1.0
    assert {strategy for strategy, _ in found} == {"final_only", "functional_submodel", "functional_freed"}


def test_a_model_whose_blocks_are_not_alike_is_refused():
    assert forecast(Made(bent=0.17), "all", 1, 1).missed == pytest.approx(0.17 / 35.17)
    with pytest.raises(
        UserError,
        match=r"^model 'made' at 1 x 8: XLA's plan for 5 blocks is 5\.4% off the line through 2 and 3, so "
        r"that nothing follows for 10$",
    ):
        forecast(Made(bent=2.0), "all", 1, 8)


def test_embeddings_need_no_block():
    with pytest.raises(
        UserError, match=r"^points 'embeddings': no block runs for these: their payload is all there is$"
    ):
        forecast(Made(), "embeddings", 1, 1)


def test_the_models_own_output_is_no_hidden_state():
    with pytest.raises(UserError, match=r"^points 'output': a forecast is for hidden states, as last_four$"):
        forecast(Made(), OUTPUT, 1, 1)


def test_what_fits_fits_with_the_weights():
    found = Forecast(
        100, 1, 1, (Way("a", "jit", 0, 0, 20, 1, NO_WORK), Way("b", "jit", 0, 0, 21, 1, NO_WORK)), 0.0
    )
    assert [way.strategy for way in found.ways if found.fits(way, 120)] == ["a"]


@pytest.mark.parametrize(
    ("text", "size"), [("80GB", 80e9), ("24 GiB", 24 * 2**30), ("1.5gb", 1.5e9), ("512MiB", 2**29)]
)
def test_sizes_are_read(text, size):
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["80", "GB", "0GB", "80TB", "-1GB", "80GB!"])
def test_other_sizes_are_refused(text):
    with pytest.raises(UserError, match=rf"^--memory '{text}': expected a size, as 80GB or 24GiB$"):
        size_bytes(text)


def test_devices_and_shapes_are_found_by_name():
    assert device("h200").memory_bytes == 141e9
    with pytest.raises(UserError, match=r"^unknown device 'h20'; did you mean 'h200'\?$"):
        device("h20")
    assert {find(spec.name).blocks for spec in SHAPES} == {32, 80}
    assert find("minilm").blocks == 6


FORETOLD = Foretold(
    held=(
        Held(device="cpu", mode="jit", of=WORK, cases=9, median=0, median_size=0, largest=0),
        Held(device="cpu", mode="jit", of=HEAP, cases=9, median=-0.097, median_size=0.097, largest=0.355),
        Held(device="cpu", mode="jit", of=RUN_HEAP, cases=9, median=0.004, median_size=0.004, largest=0.02),
        Held(device="gpu", mode="jit", of=DEVICE, cases=5, median=-0.044, median_size=0.05, largest=0.4),
    ),
    timed=(
        Timed(
            run="r",
            backend="jax",
            mode="jit",
            device="cpu",
            shapes=3,
            cases=10,
            median_size=0.04,
            largest=0.1,
        ),
    ),
    large=(
        Large(
            model="large",
            batch=2,
            length=4096,
            weights_bytes=100 * 2**30,
            all_bytes=60 * 2**30,
            peaks={
                "final_only": 1 * 2**30,
                "functional_submodel": 2 * 2**30,
                "always_return_all": 64 * 2**30,
            },
            fits={"final_only": ("h200",), "functional_submodel": ("h200",), "always_return_all": ()},
        ),
    ),
    dtype="bfloat16",
    points="last_four",
    devices=(("t4", 16e9), ("h200", 141e9)),
)


def test_a_forecast_is_told_with_the_error_of_those_that_were_measured():
    assert FORETOLD.of_peaks("jit", on_gpu=False).median == -0.097
    assert FORETOLD.of_peaks("jit", on_gpu=False, with_run=True).median == 0.004
    assert FORETOLD.of_peaks("jit", on_gpu=True).largest == 0.4
    assert FORETOLD.of_peaks("eager", on_gpu=True) is None


def test_the_largest_models_stand_on_the_page_with_the_errors_of_such_forecasts():
    large, held, taken = section(FORETOLD).grids
    assert large.header == (
        *("model", "weights", "peak: plain pass", "peak: last_four", "peak: all"),
        *("all hidden states", "all fit on"),
    )
    assert large.rows == (
        ("large 2x4,096", "100.0 GiB", "1.000 GiB", "2.000 GiB", "64.00 GiB", "60.00 GiB", "none"),
    )
    assert held.rows[1] == ("cpu", "jit", "peak heap", "9", "-9.7 %", "9.7 %", "35.5 %")
    assert taken.rows == (("r", "jax", "jit", "cpu", "3", "10", "4.0 %", "10.0 %"),)


def test_they_stand_on_the_pages_of_runs_that_measured_jax_compiled(monkeypatch):
    monkeypatch.setattr("hiddencost.foretold.shipped", lambda: FORETOLD)
    case = Case(model="m", strategy=REFERENCE, backend="jax", mode="jit", batch=1, length=8)
    for there, one in ((True, case), (False, case.with_(mode="eager"))):
        table = Table(run_of([Measurement(case=one, metric="seconds", values=(0.5,))]))
        assert foretold_on_page(table).full == there
        assert (foretold_drawn(table) is not None) == there


def test_their_plot_says_the_finding_and_draws_every_peak_beside_the_weights():
    figure = draw(FORETOLD)
    assert figure.get_suptitle().replace("\n", " ") == (
        "All hidden states of large at 2 × 4,096 tokens are 60.00 GiB: returning them takes 164.0 GiB with "
        "the weights"
    )
    (axis,) = figure.axes
    bars = [(bar.get_x(), bar.get_width()) for bar in axis.patches if bar.get_height() < 0.9]
    assert bars == [(0, 100), (100, 1), (100, 2), (100, 64)]


WHOLE = ("forecast", "--batch", "1", "--seq", "8")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((*WHOLE, "--model", "llama3_7b"), "unknown model 'llama3_7b'; did you mean 'llama3_70b'?"),
        (
            (*WHOLE, "--model", "minilm", "--dtype", "float16"),
            "--dtype float16; did you mean 'bfloat16'?",
        ),
        ((*WHOLE, "--model", "minilm", "--memory", "80"), "--memory '80': expected a size, as 80GB or 24GiB"),
        (("forecast", "--model", "minilm", "--batch", "0", "--seq", "8"), "--batch 0 --seq 8: at least 1"),
        (
            ("forecast", "--model", "minilm", "--batch", "1", "--seq", "513"),
            "--seq 513: minilm takes at most 512 tokens",
        ),
        (
            (*WHOLE, "--model", "minilm", "--dtype", "mixed_bfloat16"),
            "--dtype mixed_bfloat16; did you mean 'bfloat16'?",
        ),
        ((*WHOLE, "--model", "preset:./nowhere"), "preset folder nowhere does not exist"),
        (
            (*WHOLE, "--model", "minilm", "--run", "reports/reference"),
            "--run reports/reference: times 0 shapes in bfloat16 with JAX's jit on a CPU, a fit needs 3 "
            "(--dtype says which)",
        ),
        (
            (*WHOLE, "--model", "minilm", "--run", "reports/reference-backends", "--device", "l4"),
            "--run reports/reference-backends: tells how long a call takes on a CPU: leave out --device l4",
        ),
        (
            (*WHOLE, "--model", "minilm", "--measure"),
            "--measure --dtype bfloat16: what is run here is float32 on this CPU: --dtype float32 alone",
        ),
        (
            (*WHOLE, "--model", "minilm", "--dtype", "float32", "--measure", "--device", "l4"),
            "--measure --device l4: what is run here is float32 on this CPU: --dtype float32 alone",
        ),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, told):
    assert refused(*arguments) == told


def test_without_jax_the_command_that_installs_it_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert (
        refused(*WHOLE, "--model", "llama3_8b")
        == "backend 'jax' is not installed: pip install 'hiddencost[jax]'"
    )


def test_the_table_tells_what_fits_and_how_long_the_copy_takes(monkeypatch):
    ready = (
        Way("final_only", "jit", 0, 18 * MIB, 24 * MIB, 1.0, NO_WORK),
        Way("always_return_all", "jit", 64e9, 65e9, 70e9, 0.96, NO_WORK),
        Way("always_return_all", "eager", 64e9, 65e9, 70e9, 0.96, NO_WORK),
        Way("functional_freed", "eager", 0, 18 * MIB, 28 * MIB, 0.96, NO_WORK),
    )
    monkeypatch.setattr(forecasts, "forecast", lambda *given: Forecast(20_000_000_000, 10, 2, ready, 0.0012))
    built = SimpleNamespace(max_length=512)
    monkeypatch.setattr("hiddencost.forecast.lowering.Shapes", lambda *given, fused: built)
    monkeypatch.setattr("hiddencost.backends.check", lambda name: None)
    monkeypatch.setattr("hiddencost.backends.start", lambda name, threads: None)
    monkeypatch.setattr("hiddencost.foretold.shipped", lambda: FORETOLD)
    result = call(*WHOLE, "--model", "llama3_8b", "--device", "h100")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == (
        "llama3_8b, bfloat16, 1 x 8: 2 hidden states of 10 blocks; weights 18.63 GiB; 74.51 GiB of memory"
    )
    assert " ".join(lines[1].split()) == (
        "way mode payload live-set floor peak expected error with weights passes fits to the host"
    )
    assert lines[2].split()[8:11] == ["-4.4", "%,", "40.0"]
    (eager,) = [line.split() for line in lines if line.startswith("always_return_all  eager")]
    assert eager[8] == "–"  # no eager peak on a GPU was held against a measurement
    assert "of such peaks where XLA planned them on a GPU" in lines[-1]
    assert lines[2].split()[-3:] == ["1.00", "yes", "–"]
    assert lines[3].split()[-4:] == ["0.960", "no", "1.00", "s"]
    assert lines[-3] == (
        "Recommended, as the lowest peak: compiled `always_return_all`, 65.19 GiB beside the weights (which "
        "does not fit); where calls are eager `functional_freed`, 28.00 MiB beside the weights."
    )
    assert "which misses 5 blocks by 0.12%" in lines[-1]


def sample(blocks, flops, accessed, off=1.0):
    """Of a machine that takes 1 ms, 2 ms a block, 1 s for a gigaflop and 1 s for 4 GB."""
    return Work(blocks, flops, accessed), (0.001 + 0.002 * blocks + flops / 1e9 + accessed / 4e9) * off


def test_a_machine_that_computes_evenly_is_found_again():
    samples = [sample(3, 1e6, 1e7), sample(6, 1e8, 5e7), sample(6, 7e8, 1e8), sample(2, 2e7, 9e7)]
    found = fitted([*samples, sample(1, 1e6, 1e6)])
    told = found.at_rest, found.per_block, found.per_flop, found.per_byte
    assert told == pytest.approx((0.001, 0.002, 1e-9, 0.25e-9), rel=1e-6)
    assert found.seconds(Work(10, 1e9, 4e9)) == pytest.approx(2.021, rel=1e-6)


def test_nothing_of_a_call_takes_less_than_no_time():
    """Calls that get faster with more bytes: no part of the fit is negative."""
    done = [(1e9, 1e6, 1.0), (1e9, 1e8, 0.9), (2e9, 1e6, 2.0), (2e9, 1e8, 1.8)]
    found = fitted([(Work(1, flops, accessed), seconds) for flops, accessed, seconds in done])
    assert found.per_byte == 0
    assert found.seconds(Work(1, 1e9, 1e9)) == pytest.approx(0.95, rel=0.02)


def test_errors_are_those_of_shapes_that_were_left_out():
    even = {
        shape: [sample(6, flops, 10 * flops)]
        for shape, flops in (("a", 1e6), ("b", 1e7), ("c", 1e8), ("d", 1e9))
    }
    assert pace(even).median_error == pytest.approx(0, abs=1e-6)
    odd = {**even, "e": [sample(6, 5e8, 5e9, off=2.0)]}
    found = pace(odd)
    assert max(map(abs, found.errors)) == pytest.approx(math.log(2), rel=0.05)
    assert found.median_error < 0.6
    center, low, high = found.interval(Work(6, 5e8, 5e9))
    assert low < center < high
    assert high / center == pytest.approx(center / low)


def test_too_few_shapes_are_refused():
    with pytest.raises(UserError, match=r"^2 shapes are timed whose work is known: a fit needs 3$"):
        pace({"a": [sample(1, 1, 1)], "b": [sample(1, 2, 2)]})


def test_the_cases_of_a_run_whose_work_is_known_are_gathered_by_shape():
    case = Case(model="m", strategy=REFERENCE, backend="jax", mode="jit", batch=1, length=8)
    others = [
        case.with_(strategy="functional_submodel", points="all"),
        *(case.with_(strategy=name) for name in (TWIN, "on_request")),
        case.with_(mode="eager"),
        case.with_(backend="tensorflow"),
        case.with_(device="gpu"),
        case.with_(length=16),
        case.with_(model="unknown"),
    ]
    measured = [Measurement(case=one, metric="seconds", values=(0.5,), block=0) for one in (case, *others)]
    table = Table(run_of(measured))
    found = timed(
        table, "jax", "jit", "cpu", lambda one: None if one.model == "unknown" else Work(6, one.length, 1)
    )
    assert found == {
        ("m", "float32", 1, 8): [(Work(6, 8, 1), 0.5)] * 2,
        ("m", "float32", 1, 16): [(Work(6, 16, 1), 0.5)],
    }


@pytest.mark.parametrize("error", [BrokenProcessPool(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory")])
def test_a_model_that_does_not_run_here_is_told_in_one_line(monkeypatch, error):
    class Dying:
        def __init__(self, settings):
            assert settings["PYTHONMALLOC"] == "malloc"

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def call(self, function, *given):
            assert (function, given) == (beyond.child_beyond, ("llama3_8b", "float32", 2, 32, 4096))
            raise error

    monkeypatch.setattr(beyond, "Child", Dying)
    told = "--measure: 2 blocks of llama3_8b at 32 x 4096 do not run on this machine: leave it out"
    with pytest.raises(UserError, match=f"^{told}$"):
        beyond.beyond("llama3_8b", "float32", 32, 4096)


def test_what_is_taken_beyond_the_plan_is_a_line_through_two_and_five_blocks_checked_by_three(monkeypatch):
    class Ready:
        def __init__(self, settings):
            pass

        __enter__, __exit__ = (lambda self: self), (lambda self, *error: None)

        def call(self, function, name, dtype, blocks, rows, length):
            return taken[blocks], 1000.0

    monkeypatch.setattr(beyond, "Child", Ready)
    taken = {2: 7.0, 5: 8.5, 3: 7.5}
    found = beyond.beyond("bert_tiny", "float32", 1, 8)
    assert (found.at_none, found.each, found.at(12), found.missed) == (6.0, 0.5, 12.0, 0.0)
    taken = {2: 7.0, 5: 6.9, 3: 7.0}  # never less than the plan of many blocks
    assert beyond.beyond("bert_tiny", "float32", 1, 8).at(80) == 7.0
    taken = {2: 7.0, 5: 8.5, 3: 12.4}
    assert beyond.beyond("bert_tiny", "float32", 1, 8).missed == pytest.approx(0.0049)
    taken = {2: 7.0, 5: 8.5, 3: 1.5}
    told = (
        "--measure: 3 blocks of bert_tiny at 1 x 8 take 0.6% more or less than 2 and 5 blocks tell, "
        "so that nothing follows for all: leave it out"
    )
    with pytest.raises(UserError, match=f"^{told}$"):
        beyond.beyond("bert_tiny", "float32", 1, 8)


def test_blocks_take_no_time_of_their_own_where_all_calls_have_as_many():
    samples = [sample(12, 1e6, 1e7), sample(12, 1e8, 5e7), sample(12, 7e8, 1e8), sample(12, 2e7, 9e7)]
    found = fitted(samples)
    assert (found.at_rest, found.per_block) == pytest.approx((0.025, 0), rel=1e-6)


def test_with_measure_what_is_wrong_is_told_before_blocks_are_run_and_then_they_count(monkeypatch):
    monkeypatch.setattr("hiddencost.backends.check", lambda name: None)
    monkeypatch.setattr("hiddencost.backends.start", lambda name, threads: None)
    monkeypatch.setattr("hiddencost.forecast.lowering.Shapes", lambda *given, fused: Made())
    monkeypatch.setattr("hiddencost.foretold.shipped", lambda: FORETOLD)
    measure = (*WHOLE, "--model", "minilm", "--dtype", "float32", "--measure", "--points")
    monkeypatch.setattr(beyond, "beyond", lambda *given: pytest.fail("it ran blocks"))
    assert refused(*measure, "embeddings") == (
        "points 'embeddings': no block runs for these: their payload is all there is"
    )
    monkeypatch.setattr(beyond, "beyond", lambda *given: Line(100 * MIB, 0.0, 0.0012))
    told = call(*measure, "middle").output
    assert "124.0 MiB" in told.splitlines()[2]  # 24 without
    assert "+0.40 %, 2.0 %" in told.splitlines()[2]
    ran = (
        "what 2 and 5 blocks took beyond theirs when they were run here, a line that misses 3 blocks by 0.12%"
    )
    assert f"{ran} of their peak. " in told
