"""Hidden states are found in models of every kind, exactly: the right blocks, in order, with their values."""

from dataclasses import dataclass

import pytest

from hiddencost import grid, points, survey
from hiddencost.errors import UserError
from hiddencost.survey.known import Known

SURVEYED = [
    *(known.name for kind, all_known in survey.KINDS.items() if kind != "image" for known in all_known),
    *("ViTBackbone", "CLIPBackbone", "PaliGemmaBackbone", "ViTDetBackbone", "SegFormerBackbone"),
]
"""All but most of those that see, which take minutes: `make points-all`."""


# T5 itself tells at each call that masks end at its layers; the others are Keras's own too.
@pytest.mark.filterwarnings("ignore:.*with a mask attached to it", "ignore:.*looks like it has unbuilt state")
@pytest.mark.filterwarnings("ignore:The 'rwkv_ops' package is not installed", "ignore:Layer .* `quantize`")
@pytest.mark.filterwarnings("ignore:__array__ implementation", "ignore:You are using a softmax")
@pytest.mark.parametrize("name", SURVEYED)
def test_every_stack_is_found_whole_with_the_values_of_an_untouched_pass(process, name):
    found = survey.metrics(name, "hidden_states", 3)
    assert found["stacks"] > 0
    assert (found["stacks_right"], found["stacks_wrong"]) == (found["stacks"], 0)
    assert (found["states_difference"], found["outputs_difference"]) == (0, 0)
    assert found["control_difference"] > 0.01


@pytest.mark.filterwarnings("ignore:.*with a mask attached to it", "ignore:.*looks like it has unbuilt state")
@pytest.mark.parametrize(
    ("name", "stacks"),
    [("BLIP2Backbone", 3), ("T5GemmaBackbone", 2), ("WhisperBackbone", 2), ("EdRecBackbone", 2)],
)
def test_what_a_block_is_made_of_is_no_stack_where_there_are_but_two(process, name, stacks):
    """Two attentions, or what alone is called as a block would be: two calls, two inside each, or one."""
    found = survey.metrics(name, "hidden_states", 2)
    assert (found["stacks"], found["stacks_right"], found["stacks_wrong"]) == (stacks, stacks, 0)


def test_the_grid_of_all_models_names_all_of_them():
    planned, _ = grid.read(grid.grid_path("points"))
    graphs, _, rules = planned.points
    assert graphs.model == list(survey.SURVEYED)
    assert rules.model == [known.name for known in survey.TEXT]
    assert (*graphs.way, *rules.way) == grid.FINDING


def test_all_of_kerashubs_backbones_are_surveyed(process):
    import keras_hub

    models = keras_hub.models
    kinds = {
        getattr(models, name).__name__
        for name in dir(models)
        if name.endswith("Backbone") and name != "Backbone"
    }
    surveyed = {
        getattr(models, known.name).__name__
        for kind in ("text", "audio", "image")
        for known in survey.KINDS[kind]
    }
    assert kinds - surveyed == {"FeaturePyramidBackbone"}


@dataclass(frozen=True)
class Told(Known):
    """A handwritten model with another truth."""

    name: str
    change: object

    def made(self, depth):
        model, truth = survey.SURVEYED[self.name].made(depth)
        return model, self.change(truth)


@pytest.mark.parametrize(
    ("change", "stacks", "right", "wrong"),
    [
        (lambda truth: truth, 2, 2, 0),
        (lambda truth: {name: blocks[::-1] for name, blocks in truth.items()}, 2, 0, 2),
        (lambda truth: {**truth, "left_tower": truth["left_tower"][:-1]}, 2, 1, 1),
        (lambda truth: {"left_tower": truth["left_tower"]}, 1, 1, 1),
        (lambda truth: {**truth, "third": truth["left_tower"]}, 3, 2, 0),
        (lambda truth: {}, 0, 0, 2),
    ],
)
def test_what_is_not_found_as_it_is_counts_as_wrong(process, monkeypatch, change, stacks, right, wrong):
    monkeypatch.setitem(survey.SURVEYED, "told", Told("handwritten/towers", change))
    if stacks == 3:  # a block that was called once cannot stand in two stacks
        with pytest.raises(IndexError):
            survey.metrics("told", "hidden_states", 3)
        return
    found = survey.metrics("told", "hidden_states", 3)
    assert (found["stacks"], found["stacks_right"], found["stacks_wrong"]) == (stacks, right, wrong)


def test_values_of_other_states_are_no_hidden_states(process, monkeypatch):
    """Blocks that are told rightly, with values of another run."""
    from hiddencost.survey import looking

    class Shifted(looking.Plan):
        def values(self, *args, **kwargs):
            found = super().values(*args, **kwargs)
            return found[-1:] + found[:-1]

    monkeypatch.setattr(looking, "Plan", Shifted)
    found = survey.metrics("handwritten/custom", "hidden_states", 3)
    assert (found["stacks_right"], found["stacks_wrong"]) == (0, 1)
    assert found["states_difference"] > 0.1
    assert found["control_difference"] == 0


def test_what_is_no_number_from_the_freed_run_is_not_left_out(process, monkeypatch):
    from hiddencost.survey import looking

    right = looking.freed
    monkeypatch.setattr(looking, "freed", lambda model: lambda inputs: float("nan") * right(model)(inputs))
    with pytest.raises(
        ValueError, match=r"^freed\(model\) gives other shapes than the model, or what is not"
    ):
        survey.metrics("handwritten/custom", "hidden_states", 3)


@pytest.mark.parametrize(
    ("name", "rule", "right", "wrong"),
    [
        ("BertBackbone", "listed_attribute", 1, 0),
        ("BertBackbone", "numbered_names", 1, 0),
        ("AlbertBackbone", "listed_attribute", 0, 0),
        ("AlbertBackbone", "numbered_names", 0, 1),
        ("BartBackbone", "listed_attribute", 0, 0),
        ("BartBackbone", "numbered_names", 2, 0),
        ("RWKV7Backbone", "numbered_names", 0, 1),
    ],
)
@pytest.mark.filterwarnings("ignore:The 'rwkv_ops' package is not installed")
def test_the_rules_that_people_use_find_what_they_can(process, name, rule, right, wrong):
    found = survey.metrics(name, rule, 3)
    assert found["stacks"] == (2 if name == "BartBackbone" else 1)
    assert (found["stacks_right"], found["stacks_wrong"]) == (right, wrong)


@pytest.fixture(scope="module")
def handwritten(process):
    from hiddencost.survey import handwritten

    return handwritten


@pytest.mark.parametrize(
    ("name", "inside", "calls"),
    [
        ("custom", False, [0, 0, 0]),
        ("shared", False, [0, 1, 2]),
        ("opaque", True, [0, 0, 0]),
        ("nested", True, [0, 0, 0]),
        ("nested_opaque", True, [0, 0, 0]),
        ("deep", True, [0, 0, 0]),
    ],
)
def test_a_point_tells_which_call_it_is_and_whether_it_lies_inside(handwritten, name, inside, calls):
    states = points.hidden_states(getattr(handwritten, name)()[0])
    assert [point.call for point in states.blocks] == calls
    assert {point.inside for point in states} == {inside}
    assert [point.name for point in states] == ["embeddings", "block_0", "block_1", "block_2"]


@pytest.mark.parametrize("operators", [False, True])
@pytest.mark.parametrize("post", [False, True])
def test_a_transformer_written_with_plain_layers(handwritten, post, operators):
    model, right = handwritten.flat(post, operators)
    states = points.hidden_states(model)
    assert [point.tensor for point in states.blocks] == right
    assert states["embeddings"].tensor is model.inputs[0]
    assert (states.final_norm is None) == post


def test_one_block_of_plain_layers_cannot_be_told_apart(handwritten):
    model, _ = handwritten.flat(depth=1)
    with pytest.raises(UserError, match=r"has no stack of blocks .* hidden_states\(model, at=\[...\]\)"):
        points.hidden_states(model)


@pytest.mark.parametrize(("refuses", "found"), [("open sizes", True), ("everything", False)])
def test_a_layer_that_cannot_be_traced_with_open_sizes_is_with_small_ones(handwritten, refuses, found):
    import keras

    class Refusing(handwritten.Encoder):
        refuses = ""

        def call(self, x):
            if self.refuses and (self.refuses == "everything" or x.shape[1] != 8):
                raise ValueError("not this")
            return super().call(x)

        def compute_output_shape(self, shape):
            return shape

    x = handwritten.text()
    encoder = Refusing(3)
    model = keras.Model(x, encoder(x))
    encoder.refuses = refuses
    if found:
        (states,) = points.all_stacks(model).values()
        assert [point.layer for point in states.blocks] == encoder.blocks
        return
    with pytest.warns(UserWarning, match="cannot be traced: what is inside is not seen"):
        (states,) = points.all_stacks(model).values()
    assert [point.layer for point in states.blocks] == [encoder]  # as a block of its own


def test_several_stacks_are_listed_and_one_is_chosen(handwritten):
    import keras

    one, _ = handwritten.custom(2, "left_tower")
    other, second = handwritten.custom(3, "right_tower")
    x, y = handwritten.text(), handwritten.text("y")
    model = keras.Model([x, y], keras.layers.Add()([one(x), other(y)]))
    with pytest.raises(UserError, match=r"2 stacks: 'left_tower' \(2 blocks\), 'right_tower' \(3 blocks\)"):
        points.hidden_states(model)
    assert [point.layer for point in points.hidden_states(model, "right_tower").blocks] == second
    with pytest.raises(UserError, match=r"unknown stack 'left'; did you mean 'left_tower'\?"):
        points.hidden_states(model, "left")


def test_points_that_the_caller_names(handwritten):
    import keras

    x = keras.Input((4,))
    y = keras.layers.Dense(3, name="first")(x)
    model = keras.Model(x, keras.layers.Dense(2, name="second")(y))
    states = points.hidden_states(model, at=["first", model.outputs[0], model.layers[1]])
    assert [point.name for point in states] == ["first", "second", "first"]
    assert states[0].tensor is y
    with pytest.raises(UserError, match=r"has no layer 'firts'; did you mean 'first'\?"):
        points.hidden_states(model, at=["firts"])
    with pytest.raises(UserError, match="its layers with weights: first, second"):
        points.hidden_states(model)
    with pytest.raises(UserError, match="is no layer of its graph"):
        points.hidden_states(model, at=[keras.layers.Dense(1)])


def test_models_without_a_graph_are_refused(process):
    import keras

    class Own(keras.Model):
        pass

    with pytest.raises(UserError, match="is a subclassed model, which has no graph"):
        points.hidden_states(Own())
    with pytest.raises(UserError, match="is not built: call it once"):
        points.hidden_states(keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises(UserError, match="str is no Keras model"):
        points.hidden_states("bert")


@pytest.mark.parametrize(
    "name", ["VGG16", "ResNet50", "ResNet50V2", "DenseNet121", "MobileNetV2", "EfficientNetB0", "Xception"]
)
def test_convolutional_models_have_no_hidden_states(process, name):
    import keras

    model = getattr(keras.applications, name)(weights=None, include_top=False)
    with pytest.raises(UserError, match="has no stack of blocks"):
        points.hidden_states(model)
