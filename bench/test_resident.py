"""Peak resident set of one call: a fresh process for every case."""


def test_resident(task, peak, benchmark):
    benchmark.extra_info["peak_rss_bytes"] = peak[0]
    benchmark.pedantic(lambda: None)
