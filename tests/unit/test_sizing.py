"""The memory arithmetic against the default model, and the document against the command."""

from __future__ import annotations

import torch

from demo.bench.sizing import BLOCK, COMMAND, DOCUMENT, SHAPES, Setup, Shape, lines, main, pairs
from demo.models.architectures import token_bytes
from demo.utils.json_files import read_object
from demo.utils.markdown import block


def shape_of(config) -> Shape:
    """The shape that a model's configuration describes."""
    return Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=config.hidden_size // config.num_attention_heads,
        intermediate=config.intermediate_size,
        vocabulary=config.vocab_size,
        tied=config.tie_word_embeddings,
    )


def test_parameters_and_cache_of_the_default_model(model):
    shape = shape_of(model.model.config)
    with torch.device("meta"):  # the loaded model may have given its matrices to a fused pass
        complete = type(model.model)(model.model.config)
    counted = sum(parameter.numel() for parameter in complete.parameters())
    assert abs(shape.parameters / counted - 1) < 1e-3
    assert shape.kv_bytes == token_bytes(model.model.config, 2)


def test_known_models_have_the_size_in_their_name():
    shapes = {name: Shape(**shape) for name, shape in read_object(SHAPES, "x")["models"].items()}
    for name, shape in shapes.items():
        stated = float(name.split()[-1].removesuffix("B"))
        assert abs(shape.parameters / 1e9 - stated) < 0.03 * stated, name


def test_a_model_that_does_not_fit_leaves_room_for_no_pair():
    shape = Shape(**read_object(SHAPES, "x")["models"]["Llama 3.3 70B"])
    assert pairs(shape, Setup("", 16, 1, 80)) == 0 < pairs(shape, Setup("", 8, 1, 141))


def test_the_document_shows_the_output_of_the_command(capsys):
    text = "\n".join(lines(read_object(SHAPES, "x")))
    assert block(BLOCK, COMMAND, text) in DOCUMENT.read_text(encoding="utf-8")
    assert main([]) == 0 and capsys.readouterr().out.strip() == text
