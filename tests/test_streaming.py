"""A corpus streamed into a folder: every line once, in order, whatever happens on the way."""

import numpy as np
import pytest
from experiments import experiment
from safetensors.numpy import load_file

import hiddencost
from hiddencost import streaming
from hiddencost.errors import UserError
from hiddencost.inputs import sentences


@pytest.fixture
def corpus(tmp_path):
    """A text with an empty line, a damaged one, and a long one."""
    own = [sentence.encode() for sentence in sentences()[:40]]
    own[3], own[7], own[11] = b"", b"caf\xe9 au lait", b"word " * 200
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"\n".join(own) + b"\n")
    return path


def stream(tiny, corpus, folder, **changes):
    loaded, _ = tiny
    given = {"points": "all", "reduce": None, "part_bytes": 2**18, **changes}
    reader = hiddencost.extractor(loaded.model, given["points"], reduce=given["reduce"], mode="eager")
    settings = streaming.Settings(
        model="bert_tiny", stack=None, dtype=None, max_length=64, source=corpus.name,
        source_bytes=corpus.stat().st_size, hiddencost="x", **given,
    )  # fmt: skip
    return streaming.Stream(loaded, reader, settings, corpus, folder, batch=8)


def read(folder):
    return [load_file(path) for path in sorted(folder.glob("part-*.safetensors"))]


def test_every_line_is_there_once_in_order_with_the_states_of_a_call_of_its_own(tiny, corpus, tmp_path):
    loaded, _ = tiny
    work = stream(tiny, corpus, tmp_path / "states")
    assert len(list(work.parts())) > 3
    parts = read(tmp_path / "states")
    assert np.concatenate([part["rows"] for part in parts]).tolist() == list(range(40))
    text = corpus.read_bytes().decode("utf-8", "replace").split("\n")[:40]
    reader = hiddencost.extractor(loaded.model, "all", mode="eager")
    seen = 0
    for part in parts:
        for place, row in enumerate(part["rows"]):
            begin, end = part["offsets"][place : place + 2]
            tokens = loaded.text.tokens([text[row]])[0]
            length = min(64, len(tokens) + 2)
            assert end - begin == length
            whole = loaded.text.batch([tokens], length)
            right = reader({name: whole[name] for name in ("token_ids", "padding_mask", "segment_ids")})
            for name, tensor in right.items():
                np.testing.assert_allclose(part[name][begin:end], reader.to_numpy(tensor)[0], atol=1e-4)
            seen += 1
    assert seen == 40
    index = work.index
    assert (index.rows, index.cut, index.damaged, index.complete) == (40, 1, 1, True)
    assert index.tokens == sum(len(part["embeddings"]) for part in parts)
    assert all(part["block_1"].nbytes * 3 <= 2**18 for part in parts)


def test_a_run_that_was_killed_goes_on_and_gives_the_same_files(tiny, corpus, tmp_path):
    list(stream(tiny, corpus, tmp_path / "whole", reduce="mean", part_bytes=2**13).parts())
    whole = read(tmp_path / "whole")
    for killed_after in range(len(whole)):
        folder = tmp_path / f"killed-{killed_after}"
        work = stream(tiny, corpus, folder, reduce="mean", part_bytes=2**13).parts()
        for _ in range(killed_after):
            next(work)
        work.close()
        (folder / "part-000009.safetensors.unfinished").parent.mkdir(exist_ok=True)
        if killed_after:
            (folder / "part-000009.safetensors.unfinished").write_bytes(b"half")
        list(stream(tiny, corpus, folder, reduce="mean", part_bytes=2**13).parts())
        again = read(folder)
        assert len(again) == len(whole)
        for one, other in zip(again, whole, strict=True):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])
        assert not list(folder.glob("*.unfinished"))


def test_a_part_that_was_written_before_the_index_is_written_again(tiny, corpus, tmp_path):
    folder = tmp_path / "states"
    work = stream(tiny, corpus, folder, reduce="mean", part_bytes=2**13).parts()
    next(work)
    index = (folder / "index.json").read_bytes()
    next(work)
    (folder / "index.json").write_bytes(index)
    list(stream(tiny, corpus, folder, reduce="mean", part_bytes=2**13).parts())
    assert np.concatenate([part["rows"] for part in read(folder)]).tolist() == list(range(40))


def test_a_folder_of_other_states_is_refused(tiny, corpus, tmp_path):
    list(stream(tiny, corpus, tmp_path / "states", reduce="mean").parts())
    with pytest.raises(UserError, match="holds other states: reduce was 'mean' and is None"):
        stream(tiny, corpus, tmp_path / "states")
    with pytest.raises(UserError, match="holds other states: weights was '' and is 'abc'"):
        stream(tiny, corpus, tmp_path / "states", reduce="mean", weights="abc")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("Dear")
    with pytest.raises(UserError, match=r"is not empty, and holds no index\.json"):
        stream(tiny, corpus, tmp_path / "mine")
    (tmp_path / "states" / "index.json").write_text("{")
    with pytest.raises(UserError, match=r"index\.json: is damaged"):
        stream(tiny, corpus, tmp_path / "states", reduce="mean")


def test_the_digests_tell_another_text_and_other_weights(process, tmp_path):
    import keras

    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    assert streaming.text_digest(tmp_path / "a") != streaming.text_digest(tmp_path / "b")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    before = streaming.weights_digest(model)
    assert streaming.weights_digest(model) == before
    model.layers[0].kernel.assign_add(np.full((4, 3), 1e-3, "float32"))
    assert streaming.weights_digest(model) != before


def test_an_empty_text_is_a_finished_folder_without_a_part(tiny, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_bytes(b"")
    work = stream(tiny, empty, tmp_path / "states")
    list(work.parts())
    assert (work.index.complete, work.index.parts) == (True, 0)


def test_rows_are_padded_to_few_lengths():
    assert [streaming.padded(n, 500) for n in (1, 16, 17, 100, 256, 257, 500)] == [
        16,
        16,
        32,
        128,
        256,
        500,
        500,
    ]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(monkeypatch):
    streamed = experiment("streaming")
    monkeypatch.setattr(streamed, "MOST_PREDICTED", 0)
    few, many = streamed.rows([1000, 20_000])
    assert many["written_bytes"] > 15 * few["written_bytes"]
    assert many["peak_rss_bytes"] < 1.1 * few["peak_rss_bytes"]
