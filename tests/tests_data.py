"""Small runs for tests."""

from synthetic import synthetic_run

from hiddencost import store


def small_run(folder, blocks=2):
    """A run folder with a synthetic run in it."""
    run = synthetic_run(blocks=blocks)
    writer = store.Writer(folder, run.header)
    for line in (*run.environments, *run.measurements, run.ending):
        writer.write(line)
    writer.close()
    return folder
