"""Peak heap of one call: a process for each strategy and mode, shapes ascending."""


def test_memory(task, peak, benchmark):
    benchmark.extra_info["peak_heap_bytes"] = peak[0]
    benchmark.pedantic(lambda: None)
