# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
"""
# Intermediate output from a pretrained model

**Date created:** 2026/11/26<br>
**Accelerator:** none<br>
**Description:** Read the hidden states of a KerasHub model, find out what each of them knows, use several at
once, train one block alone, and see what each of these costs.

A transformer returns what its last block made of a text. What the blocks before it made is there too, and
is sometimes the better representation: in BERT the first layers know word order best, and what a sentence
means is found further up ([Rogers et al. 2020](https://arxiv.org/abs/2002.12327), sections 4.3 and 4.4).
Keras needs no special call and no extra argument for it: every intermediate tensor of a functional model
can be the output of another model that shares its layers.

This guide runs on two cores in two to three minutes, with any Keras backend, from a clone of hiddencost after
`make quick` or `make test`. The model is all-MiniLM-L6-v2, which has six of BERT's blocks and was trained to
tell which sentences mean the same.
"""

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # or "jax", or "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import logging
import random
import time
from importlib.resources import files
from pathlib import Path

import keras
import keras_hub
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

import hiddencost
from hiddencost.models import minilm_folder

logging.getLogger("tensorflow").setLevel("ERROR")  # it advises on retracing, which is for loops
started = time.perf_counter()
preset = str(minilm_folder())  # a folder; the name of a preset, such as "bert_base_en", does as well
backbone = keras_hub.models.Backbone.from_preset(preset)
tokenizer = keras_hub.models.Tokenizer.from_preset(preset)


def pack(texts, length):
    """The model's inputs, each (texts, length)."""
    packer = keras_hub.layers.StartEndPacker(
        sequence_length=length,
        start_value=tokenizer.cls_token_id,
        end_value=tokenizer.sep_token_id,
        pad_value=tokenizer.pad_token_id,
    )
    token_ids = keras.ops.convert_to_numpy(packer(tokenizer(texts)))
    return {
        "token_ids": token_ids,
        "padding_mask": token_ids != tokenizer.pad_token_id,
        "segment_ids": np.zeros_like(token_ids),
    }


inputs = pack(["Rain fell.", "The library keeps old maps."], length=16)

# %% [markdown]
"""
## Reading hidden states

A functional model is a graph of named tensors. A *sub-model* begins at the same inputs and ends at the tensor
that you want: here at the output of the third of six blocks. Blocks after it do not run.
"""

# %%
third = backbone.transformer_layers[2].output
early = keras.Model(backbone.inputs, third)
state = early.predict(inputs, verbose=0)

print(f"hidden state of the third block: {state.shape} (texts, tokens, width)")
print(f"layers that run: {len(early.layers)} of {len(backbone.layers)}")
print(f"weights that are used: {early.count_params():,} of {backbone.count_params():,}")

# %% [markdown]
"""
Layers are found by attribute, by name or by index. Look them up once, when the sub-model is built. Several
outputs make one model with several outputs; a dict keeps their names.
"""

# %%
by_name = backbone.get_layer("transformer_layer_2").output
by_index = backbone.get_layer(index=backbone.layers.index(backbone.transformer_layers[2])).output
assert by_name is third
assert by_index is third

several = keras.Model(backbone.inputs, {"early": backbone.transformer_layers[0].output, "middle": third})
print({name: tuple(value.shape) for name, value in several(inputs).items()})

# %% [markdown]
"""
For a model whose layers you do not know, `hiddencost.hidden_states` reads the graph: the embeddings and every
block in order, in any functional Keras model, nested ones and blocks that are used several times included.
`hiddencost.extractor` builds the sub-model, checks its inputs and compiles the call.
"""

# %%
points = hiddencost.hidden_states(backbone)
print(points)

read = hiddencost.extractor(backbone, "all")  # or "last_four", "block_2", points[-2:], ...
every = read.predict(inputs, verbose=0)
print({name: value.shape for name, value in every.items()})
print(f"largest difference to the sub-model: {np.abs(every['block_2'] - state).max():.1e}")

# %% [markdown]
"""
Often one vector for each text is enough. Pool *inside* the model: then only the pooled states are returned
and copied, not those of every token. `reduce="mean"` leaves padding out; the same is a few lines of Keras.
"""

# %%
padding_mask = backbone.input["padding_mask"]


def mean_over_tokens(state):
    """(texts, tokens, width) -> (texts, width), padding left out."""
    mask = keras.ops.expand_dims(keras.ops.cast(padding_mask, state.dtype), -1)
    return keras.ops.sum(state * mask, axis=1) / keras.ops.sum(mask, axis=1)


by_hand = keras.Model(backbone.inputs, mean_over_tokens(third))(inputs)
by_hand = keras.ops.convert_to_numpy(by_hand)

read_pooled = hiddencost.extractor(backbone, "all", reduce="mean")
pooled_states = read_pooled.predict(inputs, verbose=0)
print({name: value.shape for name, value in pooled_states.items()})
print(f"largest difference to the lines by hand: {np.abs(pooled_states['block_2'] - by_hand).max():.1e}")
print(
    f"returned: {sum(value.nbytes for value in pooled_states.values()):,} bytes instead of "
    f"{sum(value.nbytes for value in every.values()):,}"
)

# %% [markdown]
"""
## What does each hidden state know?

A *linear probe* tells: a linear classifier that is trained on the hidden states alone, while the model
stays as it is. What it predicts well on examples that it has not seen stands in the states in a simple
form. Three tasks:

- **word order**: where in the sentence does a token stand? For each of its first twelve words, from the
  state of that token.
- **subject number**: is the subject of the sentence plural? From the mean over the tokens. Another noun
  beside it is as often of the other number, and no verb gives it away.
- **semantic class**: is the subject an animal, food, a vehicle, a person, clothing or a building? From the
  mean over the tokens, beside a noun of any class.

In the last two the nouns of the test sentences do not occur in training: the probe cannot learn them by
heart.

A probe that is strong enough learns anything by heart. So each has a *control task* ([Hewitt and Liang
2019](https://arxiv.org/abs/1909.03368)): every word gets a label at random, and the probe is to learn those,
tested on words that it has seen, in other sentences. It says how much of an accuracy words alone can bring,
where they are known.
"""

# %%
NOUNS = {  # singular, and plural where it is not with an s
    "animal": "cow horse mouse/mice goose/geese rabbit donkey lion spider eagle wolf/wolves goat turtle bear "
    "duck tiger monkey snake pig camel beetle squirrel pigeon hamster elephant",
    "food": "cake apple sausage sandwich/sandwiches potato/potatoes pie loaf/loaves cookie onion pear carrot "
    "egg melon pancake lemon tomato/tomatoes burger muffin biscuit cabbage noodle pizza banana mushroom",
    "vehicle": "car truck bus/buses bicycle ship canoe van tractor taxi plane ferry/ferries train wagon "
    "scooter boat helicopter motorcycle tram yacht rocket carriage sled ambulance jeep",
    "person": "doctor woman/women child/children teacher sailor nurse wife/wives farmer singer lawyer pilot "
    "painter student baker king thief/thieves actress/actresses soldier dancer priest judge tailor waiter "
    "nun",
    "clothing": "shirt coat scarf/scarves dress/dresses glove boot hat jacket sock skirt sweater belt apron "
    "sandal shoe cap vest blouse robe cloak uniform helmet slipper mitten",
    "building": "church/churches castle factory/factories school barn hotel tower chapel cottage museum "
    "palace library/libraries temple cabin house mosque/mosques warehouse prison stadium theater hospital "
    "mill hut fortress/fortresses",
}
FRAMES = (
    "the {subject} near the {other} {ended}",
    "near the {other} the {subject} {ended}",
    "beside the {other}, the {subject} {ended}",
    "yesterday the {subject} behind the {other} {ended}",
    "the {subject} that we saw after the {other} {ended}",
)
ENDINGS = (
    *("looked old", "seemed out of place", "came from the next town", "could be seen from the window"),
    *("disappeared last spring", "cost more than anyone expected", "appeared in a photograph"),
    *("stayed where we left off", "would soon be forgotten", "had no name"),
)
SEEDS = 6
TRAINED, TESTED = 600, 200
"""Sentences that a probe learns from, and those that it is tested on."""
LEARNT, HELD_OUT = 15, 9
"""Nouns of each class in the sentences to learn from, and in those to be tested on."""


def nouns_of(seed):
    """Two lists of nouns, (class, (singular, plural)): those to learn from, and those to be tested on."""
    learnt, held_out = [], []
    for group, words in NOUNS.items():
        pairs = [(word.partition("/")[0], word.partition("/")[2] or f"{word}s") for word in words.split()]
        random.Random(f"{seed} {group}").shuffle(pairs)
        learnt += [(group, pair) for pair in pairs[:LEARNT]]
        held_out += [(group, pair) for pair in pairs[LEARNT:]]
    return learnt, held_out


def make(count, nouns, rng):
    """Sentences of these nouns: texts, whether the subject is plural and its class, the same of the other
    noun, and the subject itself."""
    rows = []
    for _ in range(count):
        (group, subject), (other_group, other) = rng.sample(nouns, 2)
        plural, other_plural = rng.randrange(2), rng.randrange(2)
        text = rng.choice(FRAMES).format(
            subject=subject[plural], other=other[other_plural], ended=rng.choice(ENDINGS)
        )
        text = f"{text[0].upper()}{text[1:]}."
        rows.append((text, plural, group, other_plural, other_group, subject[plural]))
    return [np.array(column) for column in zip(*rows, strict=True)]


def probe(features, labels):
    """A linear probe, trained: logistic regression of standardized features."""
    steps = StandardScaler(), LogisticRegression(C=0.03, tol=1e-3, max_iter=1000)
    with threadpool_limits(1):  # ten times as fast on a matrix as small as this
        return make_pipeline(*steps).fit(features, labels)


def accuracy(train, train_labels, test, test_labels):
    """Held-out accuracy of a linear probe."""
    return probe(train, train_labels).score(test, test_labels)


def at_random(words, labels, seed):
    """The control task: for every word one of the labels, drawn once."""
    rng = random.Random(seed)
    drawn = {word: rng.choice(sorted(set(labels))) for word in sorted(set(words))}
    return np.array([drawn[word] for word in words])


from hiddencost.records import Case, Measurement

kept = []  # what is found, as hiddencost keeps it: the last section reads it, and so does its report


def note(task, point, how, seed, value, reduction="mean", **notes):
    """Keeps the held-out accuracy of one seed."""
    case = Case(
        model="minilm",
        strategy=how,
        points=point,
        reduction=reduction,
        task=task,
        mode=read.mode,
        backend=keras.backend.backend(),
    )
    told = {name: f"{number:.4f}" for name, number in notes.items()}
    kept.append(
        Measurement(case=case, metric="held_out_accuracy", values=(float(value),), block=seed, notes=told)
    )


def most_frequent(train_labels, test_labels):
    """The accuracy of always giving the label that is the most frequent in training."""
    names, counts = np.unique(train_labels, return_counts=True)
    return np.mean(test_labels == names[counts.argmax()])


# %% [markdown]
"""
For word order the sentences are those that hiddencost ships, and the states are read for every token. The
control is tested on the tokens that occur in training: of the others nothing can be known.
"""

# %%
PLACES = 12
lines = files("hiddencost").joinpath("data/sentences.txt").read_text(encoding="utf-8").splitlines()
packed = pack([line for line in lines if line], length=32)
long = packed["padding_mask"].sum(axis=1) >= PLACES + 4  # so that no end of a sentence is among the places
packed = {name: values[long] for name, values in packed.items()}
states = read.predict(packed, batch_size=64, verbose=0)

tokens = packed["token_ids"][:, 1 : PLACES + 1]  # the first token is the same in every sentence
order = np.tile(np.arange(PLACES), (len(tokens), 1))
for seed in range(SEEDS):
    train, test = np.split(np.random.default_rng(seed).permutation(len(tokens)), [2 * len(tokens) // 3])
    control = at_random(tokens.ravel(), order.ravel(), seed).reshape(tokens.shape)
    seen = np.isin(tokens[test].ravel(), tokens[train].ravel())
    for point, values in states.items():
        x, y = (values[rows, 1 : PLACES + 1].reshape(-1, values.shape[-1]) for rows in (train, test))
        for how, truth, asked in (("linear_probe", order, slice(None)), ("random_labels", control, seen)):
            given, wanted = truth[train].ravel(), truth[test].ravel()[asked]
            told = {"chance": most_frequent(given, wanted), "held_out": len(test) / len(train)}
            note("word_order", point, how, seed, accuracy(x, given, y[asked], wanted), "none", **told)
print(f"{len(tokens)} sentences, {PLACES} places")

# %% [markdown]
"""
For the other two, sentences are made anew for each seed, and the states are read pooled. The mean over the
tokens of the *embeddings* knows which words there are, and not which of them is the subject. What can be told
from both nouns alone, by one who guesses between them, is a line of its own in the plot below.
"""

# %%
sentences = {}  # seed -> (texts, pooled states, labels by task, rows to learn from, rows to be tested on)
for seed in range(SEEDS):
    rng = random.Random(seed)
    learnt, held_out = nouns_of(seed)
    parts = [make(TRAINED, learnt, rng), make(TESTED, learnt, rng), make(TESTED, held_out, rng)]
    texts, *columns, subject = (np.concatenate(column) for column in zip(*parts, strict=True))
    labels = dict(zip(("subject_number", "semantic_class"), columns[:2], strict=True))
    others = dict(zip(labels, columns[2:], strict=True))
    states = read_pooled.predict(pack(list(texts), length=18), batch_size=64, verbose=0)
    train, seen, test = np.split(np.arange(len(texts)), [TRAINED, TRAINED + TESTED])
    sentences[seed] = texts, states, labels, train, test
    for task, truth in labels.items():
        control = at_random(subject, truth, seed)
        told = {
            "chance": most_frequent(truth[train], truth[test]),
            "both_nouns": np.where(truth == others[task], 1.0, 0.5)[test].mean(),
            "held_out": HELD_OUT / LEARNT,
        }
        guessed = most_frequent(control[train], control[seen])
        for point, values in states.items():
            right = accuracy(values[train], truth[train], values[test], truth[test])
            note(task, point, "linear_probe", seed, right, **told)
            by_heart = accuracy(values[train], control[train], values[seen], control[seen])
            note(task, point, "random_labels", seed, by_heart, chance=guessed, held_out=TESTED / TRAINED)

print(*sentences[0][0][:4], sep="\n")

# %% [markdown]
"""
## All hidden states together

If each knows something else, take them all. ELMo's *scalar mix* ([Peters et al.
2018](https://arxiv.org/abs/1802.05365)) is a weighted sum of all hidden states whose weights are learnt. The
mean over the tokens of a weighted sum is the weighted sum of the means, so it can be learnt from the pooled
states that were read already. Each is standardized first, so that the weights can be compared.
"""


# %%
class ScalarMix(keras.layers.Layer):
    """(texts, points, width) -> (texts, width): softmax weights over the points, and one scale."""

    def build(self, shape):
        self.logits = self.add_weight(shape=(shape[1],), initializer="zeros", name="logits")
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, states):
        weights = keras.ops.reshape(keras.ops.softmax(self.logits), (1, -1, 1))
        return self.scale * keras.ops.sum(weights * states, axis=1)


def mixer(points, width, classes):
    """A model that learns the weights with a linear classifier above, and the mix inside it."""
    given = keras.Input((points, width))
    mixed = ScalarMix(name="mix")(given)
    model = keras.Model(given, keras.layers.Dense(classes, activation="softmax")(mixed))
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    return model, keras.Model(given, mixed)


weights_found = {}
for task in ("subject_number", "semantic_class"):
    for seed, (_, states, labels, train, test) in sentences.items():
        keras.utils.set_random_seed(seed)
        x = np.concatenate(list(states.values()), axis=1)
        x = StandardScaler().fit(x[train]).transform(x).reshape(len(x), len(states), -1)
        names, truth = np.unique(labels[task], return_inverse=True)
        model, mix = mixer(*x.shape[1:], len(names))
        model.fit(x[train], truth[train], batch_size=100, epochs=15, verbose=0)
        mixed = keras.ops.convert_to_numpy(mix(x))
        right = accuracy(mixed[train], truth[train], mixed[test], truth[test])
        note(task, "all", "linear_probe", seed, right, "scalar_mix", held_out=HELD_OUT / LEARNT)
        logits = keras.ops.convert_to_numpy(model.get_layer("mix").logits)
        weights_found.setdefault(task, []).append(np.exp(logits) / np.exp(logits).sum())

for task, learnt in weights_found.items():
    print(task, dict(zip(states, np.mean(learnt, axis=0).astype(float).round(2).tolist(), strict=True)))

# %% [markdown]
"""
*Head2Toe* ([Evci et al. 2022](https://arxiv.org/abs/2201.03529)) takes the features of all layers side by
side and keeps those few that matter: here a linear classifier scores each feature by the size of its
weights, a tenth of them is kept, and the same probe is trained on those alone. (The paper selects by group
lasso.)
"""

# %%
KEPT, WIDTH = 0.1, backbone.output["sequence_output"].shape[-1]


def selected(x, truth, train):
    """The features, of all, whose weights in a linear classifier of all are the largest."""
    weights = probe(x[train], truth[train])[-1].coef_
    return np.argsort(np.linalg.norm(weights, axis=0))[-int(KEPT * x.shape[1]) :]


chosen = {}
for task in ("subject_number", "semantic_class"):
    for seed, (_, states, labels, train, test) in sentences.items():
        truth, x = labels[task], np.concatenate(list(states.values()), axis=1)
        best = selected(x, truth, train)
        right = accuracy(x[train][:, best], truth[train], x[test][:, best], truth[test])
        note(task, "all", "linear_probe", seed, right, "selected", held_out=HELD_OUT / LEARNT)
        chosen.setdefault(task, []).append(np.bincount(best // WIDTH, minlength=len(states)) / len(best))

for task, shares in chosen.items():
    print(task, dict(zip(states, np.mean(shares, axis=0).round(2).tolist(), strict=True)))

# %% [markdown]
"""
## Training one block alone

Where a new task differs from the old one in one respect, training the block that is about that can be
better than training all ([Lee et al. 2023](https://arxiv.org/abs/2210.11466), *surgical fine-tuning*), and
it is cheaper: what lies below the block never changes, so its output is read once, and training runs a
sub-model that begins there. Keras cuts a graph at any tensor; the layers, with their weights, stay the
backbone's own.
"""

# %%
TASK, BLOCK, EPOCHS, ROUNDS = "subject_number", 3, 2, 2
before, mean = points[f"block_{BLOCK - 1}"], mean_over_tokens(points.last.tensor)
whole = keras.Model(backbone.inputs, mean)
upper = keras.Model([before.tensor, padding_mask], mean)  # begins in the middle of the graph
lower = hiddencost.extractor(backbone, before)


def data_of(seed):
    """The inputs of `whole`; those of `upper`, and the seconds that reading them took."""
    packed = pack(list(sentences[seed][0]), length=18)
    begun = time.perf_counter()
    below = lower.predict(packed, batch_size=64, verbose=0)[before.name]
    return packed, [below, packed["padding_mask"]], time.perf_counter() - begun


packed, from_middle, _ = data_of(0)
few = [x[:8] for x in from_middle], {name: x[:8] for name, x in packed.items()}
upper_mean, whole_mean = (
    keras.ops.convert_to_numpy(model(x)) for model, x in zip((upper, whole), few, strict=True)
)
difference = np.abs(upper_mean - whole_mean).max()
print(f"largest difference of the upper part to the whole: {difference:.1e}")

# %%
weights_before = backbone.get_weights()
blocks = backbone.transformer_layers


def train_some(seed, trained, begin, data):
    """Trains these layers and a head, on the sentences of a seed: weights trained, seconds an epoch, held-out
    accuracy. The backbone is as it was afterwards."""
    _, _, labels, train, test = sentences[seed]
    keras.utils.set_random_seed(seed)
    for layer in backbone.layers:
        layer.trainable = layer in trained
    model = keras.Model(begin.inputs, keras.layers.Dense(1, activation="sigmoid")(begin.output))
    model.compile(keras.optimizers.Adam(3e-4), "binary_crossentropy")
    x, y = (keras.tree.map_structure(lambda values, rows=rows: values[rows], data) for rows in (train, test))
    truth = labels[TASK]
    model.fit(x, truth[train], batch_size=50, epochs=1, verbose=0)  # the first epoch compiles, too
    begun = time.perf_counter()
    model.fit(x, truth[train], batch_size=50, epochs=EPOCHS - 1, verbose=0)
    seconds = (time.perf_counter() - begun) / (EPOCHS - 1)
    right = np.mean((keras.ops.convert_to_numpy(model(y))[:, 0] > 0.5) == truth[test])
    weights = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    backbone.set_weights(weights_before)
    return weights, seconds, right


results = {}
for seed in range(ROUNDS):
    packed, from_middle, reading = data_of(seed)
    for name, trained, begin, data in (
        (f"block_{BLOCK}, on the states below it", [blocks[BLOCK]], upper, from_middle),
        ("all blocks, from the text on", blocks, whole, packed),
    ):
        results.setdefault(name, []).append((*train_some(seed, trained, begin, data), reading))
backbone.trainable = True
for name, runs in results.items():
    weights, seconds, right, reading = np.median(runs, axis=0)
    accuracies = ", ".join(f"{one[2]:.1%}" for one in runs)
    print(f"{name}: {weights:,.0f} weights, {seconds:.1f} s an epoch, held-out accuracy {accuracies}")
print(f"reading the states below block_{BLOCK}, once: {reading:.1f} s")
for which, runs in zip((f"block_{BLOCK}", "block_*"), results.values(), strict=True):
    for seed, (_, _, right, _) in enumerate(runs):
        note(TASK, which, "trained", seed, right, reduction="none")

# %% [markdown]
"""
One trained block beats every probe: it need not find what the frozen states happen to show. All blocks
trained come as far or further in as many steps: on these sentences the surgery is no better, it is cheaper.
Fewer weights are trained, and the blocks below are passed once instead of in each epoch, which pays after a
few of them. (The embeddings are trained in neither.)
"""

# %% [markdown]
"""
## What this run shows

The plot has a curve for each task over the hidden states: the embeddings, then every block. At its right
stand the scalar mix and the selected features of all hidden states. Dotted is the best that needs no state:
the most frequent label; dashed is what both nouns tell, by one who guesses which of them is the subject.
"""

# %%
import tempfile
import textwrap

from IPython.display import Image, display

from hiddencost.claims import sentence, sound
from hiddencost.claims.evidence import largest, ratio_of
from hiddencost.claims.probing import last_layer, lead, probed
from hiddencost.formatting import quantity
from hiddencost.keeping import keep
from hiddencost.plots.probing import probing
from hiddencost.plots.style import save
from hiddencost.stats import Table

folder = Path(os.environ.get("HIDDENCOST_KEEP") or tempfile.mkdtemp())
run = keep(
    folder, "intermediate_outputs", kept, time.perf_counter() - started, seed=0, command="make example"
)
table = Table(run)
save(probing(table), folder / "probing")
display(Image(folder / "probing.png"))

# %%
answer = last_layer(table)
print(f"“The last layer isn't always the best representation of text”: {answer.word}.")
print(textwrap.fill(sentence(answer), 100))
for one in probed(table):
    print(f"\n{one.task.replace('_', ' ')}: ahead of a probe of the last block")
    for case in (*one.points[:-1], *one.together):
        name = case.points if case.points != "all" else f"all, {case.reduction}"
        print(f"  {name:<16}{quantity(*lead(table, [case], one.last), unit='points')}")

# %% [markdown]
"""
In brackets are 95 % intervals over the seeds, wide enough for seeds that share most of what they learn from
(Nadeau and Bengio 2003); where one spans 0, this run does not tell the two apart.

- **Word order** is put into the embeddings, by a position embedding; from there on the blocks lose it. That
  is what the papers saw, though "learn" says too much: the first layers still have it.
- **Subject number** and **semantic class** rise from what the two nouns tell without their order: it is the
  blocks that find the subject. From the fourth block on the curves are level: none is told apart from the
  last.
- The papers looked at BERT, which was trained to fill in words. This model was trained further to bring
  sentences of like meaning together, by the mean over the tokens of its *last* block: there a high semantic
  class is what it was made for.
- **The control task** of word order falls from block to block too, as the states tell less and less which
  word was read; but less: in the upper blocks they tell more about the word than about its place.
"""

# %% [markdown]
"""
## What it costs

All of this was read from a frozen model in one pass for each text. What that pass costs beside one that
returns only the final output is measured in the benchmark's [reference
run](../reports/reference/report.md):
"""

# %%
from hiddencost import store

reports = next(path / "reports" for path in (Path.cwd(), *Path.cwd().parents) if (path / "reports").is_dir())
costs = Table(sound(store.read(reports / "reference")))


def beside_plain(metric, mode, ways):
    """A line for each way (words, strategy, points, reduction): its ratio to the plain pass, at the largest
    shape that the last of them was measured at."""
    _, strategy, points, reduction = ways[-1]
    wanted = {"strategy": strategy, "points": points, "reduction": reduction}
    shape = largest(costs.cases(metric, model="minilm", mode=mode, **wanted))[0]
    texts = f"batches of {shape.batch} x {shape.length} tokens"
    texts += f", {shape.examples} texts in all" if shape.examples else ""
    print(f"\n{metric} in {mode} mode, {texts}: ratio to the plain pass")
    for words, strategy, points, reduction in ways:
        case = shape.with_(strategy=strategy, points=points, reduction=reduction)
        if metric == "seconds":
            found = costs.compare(case)
            triple = found and (found.ratio, found.low, found.high)
        else:
            triple = ratio_of(costs, case, case.group, metric)
        print(f"  {words:<40}{quantity(*triple) if triple else 'not measured'}")


SUBMODEL = "functional_submodel"
beside_plain(
    "seconds",
    "graph",
    (
        ("the middle block, sub-model", SUBMODEL, "middle", "none"),
        ("all hidden states, sub-model", SUBMODEL, "all", "none"),
        ("all, layers found by name at each call", "get_layer_name", "all", "none"),
    ),
)
for metric in ("seconds", "peak_heap_bytes"):
    beside_plain(
        metric,
        "predict",
        (
            ("all hidden states, of every token", "always_return_all", "all", "none"),
            ("all, pooled inside the model", SUBMODEL, "all", "mean"),
        ),
    )

# %% [markdown]
"""
Ending at the block that you need saves the time of those above. Over a data set, returning every token of
every hidden state costs memory, and little time; pooled inside the model, most of that memory is saved.
(`hiddencost extract` writes the states of a whole corpus to files, part after part, in [memory that does
not grow](../reports/experiments/streaming.md).) Looking layers up by name at each call costs next to
nothing beside the pass itself: build the sub-model once because it is simpler, not because a lookup is
slow.
"""
