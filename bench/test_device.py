"""Peak memory of a GPU over one call: a process for each strategy and mode, shapes ascending."""


def test_device(task, peak, benchmark):
    benchmark.extra_info["peak_device_bytes"] = peak[0]
    benchmark.pedantic(lambda: None)
