"""README says what the committed reference run says, and nothing is typed."""

from hiddencost import readme, store


def test_every_figure_of_the_readme_comes_from_the_reference_run():
    made = readme.readme(store.read(readme.REFERENCE_RUN))
    assert (readme.ROOT / "README.md").read_text() == made, "README.md differs: run `make readme`"


def test_the_pictures_and_files_that_the_readme_links_to_exist():
    import re

    text = (readme.ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (readme.ROOT / link).exists(), link
