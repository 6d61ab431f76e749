"""README says what the committed reference run says, and nothing is typed."""

from hiddencost import readme, recommended, store
from hiddencost.foretold import DEVICE


def test_every_figure_of_the_readme_comes_from_the_reference_run():
    runs = map(store.read, (readme.REFERENCE_RUN, readme.REFERENCE_PEERS, readme.REFERENCE_GPU))
    made = readme.readme(*runs, recommended.shipped())  # which test_recommending holds against its run
    assert (readme.ROOT / "README.md").read_text() == made, "README.md differs: run `make readme`"


def test_the_pictures_and_files_that_the_readme_links_to_exist():
    import re

    text = (readme.ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (readme.ROOT / link).exists(), link


def test_the_code_of_the_readme_runs_as_it_stands(process):
    """With the one preset that this machine has in place of the one that a user would download."""
    import re

    from hiddencost.models import minilm_folder

    code = "".join(re.findall(r"```python\n(.*?)```", (readme.ROOT / "README.md").read_text(), re.DOTALL))
    preset = 'preset = "bert_base_en"'
    assert preset in code
    found = {}
    exec(code.replace(preset, f"preset = {str(minilm_folder())!r}"), found)
    assert found["states"].shape == (2, 64, 384)
    assert found["middle"].name == "transformer_layer_2"
    assert {name: state.shape for name, state in found["pooled"].items()} == {
        f"block_{i}": (2, 384) for i in range(2, 6)
    }
    assert found["lean"](found["inputs"]).keys() == found["backbone"].output.keys()


def test_the_forecast_that_is_furthest_off_on_a_gpu_is_too_low_and_a_decoders():
    report = (readme.EXPERIMENTS / "forecast.md").read_text().splitlines()
    rows = [
        line.split(" | ") for line in report if line.startswith("| reference") and f"| {DEVICE} |" in line
    ]
    worst = max(rows, key=lambda cells: abs(float(cells[-1].split()[0])))
    assert (worst[1].split("_")[0], worst[-1]) == ("decoder", "-39.6 % |")
    assert "39.6 % too low, for a decoder" in (readme.ROOT / "README.md").read_text()


def test_the_first_table_of_a_report_is_read(tmp_path):
    (tmp_path / "r.md").write_text(
        "# Title\n\nText | with a bar\n\n| a | b |\n| --- | --- |\n| 1 | 2 x |\n\n| c |\n"
    )
    found = readme.first_table(tmp_path / "r.md")
    assert (found.header, found.rows) == (("a", "b"), (("1", "2 x"),))


def test_a_paragraph_of_a_report_is_read_by_its_start(tmp_path):
    (tmp_path / "r.md").write_text("# All told\n\nAll: 1 of 3.\n\nAll: 2 of 3.\n")
    assert readme.paragraph(tmp_path / "r.md", "All:") == "All: 1 of 3."
