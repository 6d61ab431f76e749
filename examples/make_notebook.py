"""Makes intermediate_outputs.ipynb from intermediate_outputs.py and runs it: `make example`."""

from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

SCRIPT = Path(__file__).with_name("intermediate_outputs.py")


def main() -> None:
    notebook = jupytext.read(SCRIPT)
    for number, cell in enumerate(notebook.cells):  # jupytext draws them at random
        cell["id"] = f"cell-{number}"
    client = NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": SCRIPT.parent}}, record_timing=False
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # what backends log while they start is of this machine
            cell["outputs"] = [one for one in cell["outputs"] if one.get("name") != "stderr"]
    nbformat.write(notebook, SCRIPT.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
