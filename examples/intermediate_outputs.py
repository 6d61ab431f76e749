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

**Description:** Read the hidden states of a KerasHub model, find out what each of them knows, use several at
once, train one block alone, and see what each of these costs.

A transformer returns what its last block made of a text. What the blocks before it made is there too, and
is sometimes the better representation: in BERT the first layers know word order best, and what a sentence
means is found further up ([Rogers et al. 2020](https://arxiv.org/abs/2002.12327), sections 4.3 and 4.4).
Keras needs no special call and no extra argument for it: every intermediate tensor of a functional model
can be the output of another model that shares its layers.

This guide runs on the CPU in about two minutes, with any Keras backend, from a clone of hiddencost after
`make quick` or `make test`. The model is all-MiniLM-L6-v2, six blocks of BERT trained to tell which
sentences mean the same.
"""

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # or "jax", or "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

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

several = keras.Model(
    backbone.inputs, {"early": backbone.transformer_layers[0].output, "middle": third}
).predict(inputs, verbose=0)
print({name: value.shape for name, value in several.items()})

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
mask = keras.ops.expand_dims(keras.ops.cast(backbone.input["padding_mask"], third.dtype), -1)
pooled = keras.ops.sum(third * mask, axis=1) / keras.ops.sum(mask, axis=1)
by_hand = keras.Model(backbone.inputs, pooled).predict(inputs, verbose=0)

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

A probe that is strong enough learns anything. So each has a *control task* ([Hewitt and Liang
2019](https://arxiv.org/abs/1909.03368)): every word gets a label at random, and the probe is to learn
those, tested on words that it has seen in other sentences. Where it comes close to the real task, the
accuracy is the probe's own merit.
"""

# %%
NOUNS = {
    "animal": "cow cows, horse horses, mouse mice, goose geese, rabbit rabbits, donkey donkeys, lion lions, "
    "spider spiders, eagle eagles, wolf wolves, goat goats, turtle turtles, bear bears, duck ducks",
    "food": "cake cakes, apple apples, sausage sausages, sandwich sandwiches, potato potatoes, pie pies, "
    "loaf loaves, cookie cookies, onion onions, pear pears, carrot carrots, egg eggs, melon melons, "
    "pancake pancakes",
    "vehicle": "car cars, truck trucks, bus buses, bicycle bicycles, ship ships, canoe canoes, van vans, "
    "tractor tractors, taxi taxis, plane planes, ferry ferries, train trains, wagon wagons, scooter scooters",
    "person": "doctor doctors, woman women, child children, teacher teachers, sailor sailors, nurse nurses, "
    "wife wives, farmer farmers, singer singers, lawyer lawyers, pilot pilots, painter painters, "
    "student students, baker bakers",
    "clothing": "shirt shirts, coat coats, scarf scarves, dress dresses, glove gloves, boot boots, hat hats, "
    "jacket jackets, sock socks, skirt skirts, sweater sweaters, belt belts, apron aprons, sandal sandals",
    "building": "church churches, castle castles, factory factories, school schools, barn barns, "
    "hotel hotels, tower towers, chapel chapels, cottage cottages, museum museums, palace palaces, "
    "library libraries, temple temples, cabin cabins",
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
SEEDS = 10
TRAINED, TESTED = 600, 150
"""Sentences that a probe learns from, and those that it is tested on."""


def nouns_of(seed):
    """Two lists of nouns, (class, (singular, plural)): two thirds to learn from, the rest to be tested."""
    learnt, held_out = [], []
    for group, words in NOUNS.items():
        pairs = [(group, tuple(pair.split())) for pair in words.split(", ")]
        random.Random(f"{seed} {group}").shuffle(pairs)
        learnt += pairs[:9]
        held_out += pairs[9:]
    return learnt, held_out


def make(count, nouns, rng):
    """Sentences of these nouns: texts, whether the subject is plural, its class, and the subject itself."""
    rows = []
    for _ in range(count):
        (group, subject), (_, other) = rng.sample(nouns, 2)
        plural = rng.randrange(2)
        text = rng.choice(FRAMES).format(
            subject=subject[plural], other=other[rng.randrange(2)], ended=rng.choice(ENDINGS)
        )
        rows.append((f"{text[0].upper()}{text[1:]}.", plural, group, subject[plural]))
    return [np.array(column) for column in zip(*rows, strict=True)]


def accuracy(train, train_labels, test, test_labels):
    """Held-out accuracy of a linear probe: logistic regression of standardized features."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, tol=1e-3, max_iter=1000))
    with threadpool_limits(1):  # ten times as fast on a matrix as small as this
        return probe.fit(train, train_labels).score(test, test_labels)


def at_random(words, labels, seed):
    """The control task: for every word one of the labels, drawn once."""
    rng = random.Random(seed)
    drawn = {word: rng.choice(sorted(set(labels))) for word in sorted(set(words))}
    return np.array([drawn[word] for word in words])


from hiddencost.records import Case, Measurement

kept = []  # what is found, as hiddencost keeps it: the last section reads it, and so does its report


CHANCE = {"word_order": 1 / 12, "subject_number": 1 / 2, "semantic_class": 1 / len(NOUNS)}


def note(task, point, how, seed, value, reduction="mean"):
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
    chance = {"chance": f"{CHANCE[task]:.4f}"}
    kept.append(
        Measurement(case=case, metric="held_out_accuracy", values=(float(value),), block=seed, notes=chance)
    )


# %% [markdown]
"""
For word order the sentences are those that hiddencost ships. The states are read for every token.
"""

# %%
PLACES = 12
lines = files("hiddencost").joinpath("data/sentences.txt").read_text(encoding="utf-8").splitlines()
packed = pack([line for line in lines if line], length=32)
long = packed["padding_mask"].sum(axis=1) >= PLACES + 4  # so that no end of a sentence is among the places
packed = {name: values[long] for name, values in packed.items()}
states = read.predict(packed, batch_size=64, verbose=0)

tokens = packed["token_ids"][:, 1 : PLACES + 1]  # the first token is the same in every sentence
places = np.tile(np.arange(PLACES), len(tokens))
for seed in range(SEEDS):
    train, test = np.split(np.random.default_rng(seed).permutation(len(tokens)), [2 * len(tokens) // 3])
    control = at_random(tokens.ravel(), places, seed).reshape(tokens.shape)
    order = places.reshape(tokens.shape)
    for point, values in states.items():
        x, y = (values[rows, 1 : PLACES + 1].reshape(-1, values.shape[-1]) for rows in (train, test))
        for how, truth in (("linear_probe", order), ("random_labels", control)):
            right = accuracy(x, truth[train].ravel(), y, truth[test].ravel())
            note("word_order", point, how, seed, right, reduction="none")
print(f"{len(tokens)} sentences, {PLACES} places")

# %% [markdown]
"""
For the other two, sentences are made anew for each seed, and the states are read pooled.
"""

# %%
sentences = {}  # seed -> (pooled states, labels by task), kept for the next sections
for seed in range(SEEDS):
    rng = random.Random(seed)
    learnt, held_out = nouns_of(seed)
    parts = [make(TRAINED, learnt, rng), make(TESTED, learnt, rng), make(TESTED, held_out, rng)]
    texts, plural, group, subject = (np.concatenate(column) for column in zip(*parts, strict=True))
    states = read_pooled.predict(pack(list(texts), length=18), batch_size=64, verbose=0)
    train, seen, test = np.split(np.arange(len(texts)), [TRAINED, TRAINED + TESTED])
    labels = {"subject_number": plural, "semantic_class": group}
    sentences[seed] = texts, states, labels, train, test
    for task, truth in labels.items():
        control = at_random(subject, truth, seed)
        for point, values in states.items():
            heard = accuracy(values[train], truth[train], values[test], truth[test])
            by_heart = accuracy(values[train], control[train], values[seen], control[seen])
            note(task, point, "linear_probe", seed, heard)
            note(task, point, "random_labels", seed, by_heart)

print(*sentences[0][0][:4], sep="\n")

# %% [markdown]
"""
## All hidden states together

If each knows something else, take them all. ELMo's *scalar mix*
([Peters et al. 2018](https://arxiv.org/abs/1802.05365)) is a weighted sum of all hidden states whose weights
are learnt. The mean over the tokens of a weighted sum is the weighted sum of the means, so it can be learnt
from the pooled states that were read already.
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
        mixed = mix.predict(x, batch_size=len(x), verbose=0)
        right = accuracy(mixed[train], truth[train], mixed[test], truth[test])
        note(task, "all", "linear_probe", seed, right, reduction="scalar_mix")
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
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, tol=1e-3, max_iter=1000))
    with threadpool_limits(1):
        weights = probe.fit(x[train], truth[train])[-1].coef_
    return np.argsort(np.linalg.norm(weights, axis=0))[-int(KEPT * x.shape[1]) :]


chosen = {}
for task in ("subject_number", "semantic_class"):
    for seed, (_, states, labels, train, test) in sentences.items():
        truth, x = labels[task], np.concatenate(list(states.values()), axis=1)
        best = selected(x, truth, train)
        right = accuracy(x[train][:, best], truth[train], x[test][:, best], truth[test])
        note(task, "all", "linear_probe", seed, right, reduction="selected")
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
BLOCK, EPOCHS = 3, 3
before, last = points[f"block_{BLOCK - 1}"], points.last
padding_mask = backbone.input["padding_mask"]
mask = keras.ops.expand_dims(keras.ops.cast(padding_mask, last.tensor.dtype), -1)
mean = keras.ops.sum(last.tensor * mask, axis=1) / keras.ops.sum(mask, axis=1)

texts, _, labels, train, test = sentences[0]
packed = pack(list(texts), length=18)
below = hiddencost.extractor(backbone, before).predict(packed, batch_size=64, verbose=0)[before.name]
whole = keras.Model(backbone.inputs, mean)
upper = keras.Model([before.tensor, padding_mask], mean)  # begins in the middle of the graph
from_middle = [below, packed["padding_mask"]]
difference = upper.predict_on_batch([x[:8] for x in from_middle]) - whole.predict_on_batch(
    {name: x[:8] for name, x in packed.items()}
)
print(f"largest difference of the upper part to the whole: {np.abs(difference).max():.1e}")

# %%
weights_before = backbone.get_weights()
for name, blocks, begin, data in (
    (f"block_{BLOCK}", [BLOCK], upper, from_middle),
    ("block_*", range(len(points.blocks)), whole, packed),
):
    keras.utils.set_random_seed(0)
    for layer in backbone.layers:
        layer.trainable = layer in [backbone.transformer_layers[block] for block in blocks]
    head = keras.layers.Dense(1, activation="sigmoid")
    model = keras.Model(begin.inputs, head(begin.output))
    model.compile(keras.optimizers.Adam(3e-4), "binary_crossentropy", metrics=["accuracy"])
    x, y = (keras.tree.map_structure(lambda values, rows=rows: values[rows], data) for rows in (train, test))
    truth = labels["subject_number"]
    model.fit(x, truth[train], batch_size=50, epochs=1, verbose=0)  # the first epoch compiles, too
    begun = time.perf_counter()
    model.fit(x, truth[train], batch_size=50, epochs=EPOCHS - 1, verbose=0)
    seconds = (time.perf_counter() - begun) / (EPOCHS - 1)
    right = model.evaluate(y, truth[test], verbose=0)[1]
    note("subject_number", name, "trained", 0, right, reduction="none")
    weights = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    print(f"{name}: {weights:,} weights trained, {seconds:.1f} s an epoch, held-out accuracy {right:.1%}")
    backbone.set_weights(weights_before)
backbone.trainable = True

# %% [markdown]
"""
## What this run shows

The plot has a curve for each task over the hidden states: the embeddings, then every block. At its right
stand the scalar mix and the selected features of all hidden states.
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
In brackets are 95 % intervals over the seeds; where one spans 0, this run does not tell the two apart. The
papers looked at BERT, which was trained to fill in words. This model was trained further to bring sentences
of like meaning together, by the mean over the tokens of its *last* block, and that is the state it has to
be good at; so a lead of a lower block at the semantic class is the more telling where there is one, and the
missing lead of the middle blocks as a whole the less surprising.

Read the control task beside each curve. At the semantic class the probe of the embeddings is hardly better
than one that learns random labels: what it knows is little more than what it can learn by heart. A probe
that falls below its control (word order in the upper blocks) reads a state that tells more about which word
this is than about where it stands.
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
    texts = f"{shape.examples or shape.batch} texts of {shape.length} tokens"
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
beside_plain(
    "peak_heap_bytes",
    "predict",
    (
        ("all hidden states, of every token", "always_return_all", "all", "none"),
        ("all, pooled inside the model", SUBMODEL, "all", "mean"),
    ),
)

# %% [markdown]
"""
Ending at the block that you need saves the time of those above. Returning every token of every hidden state
costs memory, not much time; pooled inside the model, that is saved too. Looking layers up by name at each
call costs next to nothing beside the pass itself: build the sub-model once because it is simpler, not
because a lookup is slow.
"""
