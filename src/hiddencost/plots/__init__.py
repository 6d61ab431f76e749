"""The plots of a run: each a function of the run's table, and one line in PLOTS.

Nothing here measures, and nothing judges: ratios, intervals and bands are those of `stats`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from hiddencost.claims import table_of
from hiddencost.plots.backends import backends
from hiddencost.plots.copying import copying
from hiddencost.plots.dataset import dataset_growth, payload
from hiddencost.plots.foretold import foretold
from hiddencost.plots.freed import freed
from hiddencost.plots.growth import growth
from hiddencost.plots.latency import latency_batch, latency_length
from hiddencost.plots.lookup import lookup
from hiddencost.plots.memory import memory_batch, memory_length, memory_modes
from hiddencost.plots.one_off import one_off
from hiddencost.plots.overhead import overhead, overhead_shapes
from hiddencost.plots.probing import probing
from hiddencost.plots.style import save
from hiddencost.plots.together import together
from hiddencost.records import Run
from hiddencost.stats import Table


@dataclass(frozen=True)
class Plot:
    """A plot: its name (of files and in pages), how it is drawn, and the question that it answers.

    draw: the figure, or None where the run has nothing for it.
    """

    name: str
    draw: Callable[[Table], Figure | None]
    question: str


def render(run: Run, folder: Path) -> list[str]:
    """Write `<name>.svg` and `<name>.png` into `folder` for each plot that the run has data for, remove
    those of an earlier run that it has none for, and return the names written. Cases that were wrong in
    any block are shown without values."""
    folder.mkdir(parents=True, exist_ok=True)
    table = table_of(run)
    written = []
    for plot in PLOTS:
        figure = plot.draw(table)
        if figure is None:
            for suffix in (".svg", ".png"):
                (folder / f"{plot.name}{suffix}").unlink(missing_ok=True)
            continue
        save(figure, folder / plot.name)
        figure.clear()
        written.append(plot.name)
    return written


PLOTS: tuple[Plot, ...] = (
    Plot("latency_length", latency_length, "How does the time of a call grow with the sequence length?"),
    Plot("latency_batch", latency_batch, "How does the time of a call grow with the batch size?"),
    Plot("overhead", overhead, "What does each way cost over a plain forward pass, mode by mode?"),
    Plot("backends", backends, "How do the backends compare, mode by mode?"),
    Plot("copying", copying, "What does it take to have hidden states on the host, not on the device?"),
    Plot("together", together, "What does a user wait with each backend and library, side by side?"),
    Plot("overhead_shapes", overhead_shapes, "Does that cost depend on the shape?"),
    Plot("memory_length", memory_length, "How does peak memory grow with the sequence length?"),
    Plot("memory_batch", memory_batch, "How does peak memory grow with the batch size?"),
    Plot("memory_modes", memory_modes, "What does each way hold at its peak, mode by mode?"),
    Plot("freed", freed, "What does a run hold that drops each tensor after its last use?"),
    Plot("lookup", lookup, "What does it cost to look a layer up by name, by index, or in a dict?"),
    Plot("one_off", one_off, "What is paid once, and after how many calls is it repaid?"),
    Plot("growth", growth, "What does building a sub-model at every call add up to?"),
    Plot("dataset_growth", dataset_growth, "What do the hidden states of a whole data set take?"),
    Plot("payload", payload, "How much do hidden states weigh, beside the model?"),
    Plot("probing", probing, "What does each hidden state know?"),
    Plot("foretold", foretold, "What would the hidden states of the largest models take?"),
)
