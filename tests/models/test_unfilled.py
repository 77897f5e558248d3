"""A network without weights has their names and shapes, and costs neither memory nor PyTorch's compiler."""

import subprocess
import sys

from grncli.models.tokenizer import Tokenizer, TokenizerConfig
from grncli.models.unfilled import made_on_meta

MAKE_ALL = """
import sys
from grncli.models.class_transformer import ClassTransformer, ClassTransformerConfig
from grncli.models.minilm import MiniLM
from grncli.models.text_transformer import TextTransformer, TextTransformerConfig
from grncli.models.tokenizer import Tokenizer, TokenizerConfig
from grncli.models.unfilled import made_on_meta

made_on_meta(lambda: ClassTransformer(ClassTransformerConfig(rounds=4, channels=16, classes=10)))
made_on_meta(lambda: TextTransformer(TextTransformerConfig(rounds=4, channels=64)))
made_on_meta(lambda: Tokenizer(TokenizerConfig(), 4))
made_on_meta(MiniLM)
print("torch._dynamo" in sys.modules)
"""


def small():
    return Tokenizer(TokenizerConfig(encoder_width=8, decoder_width=8), 4)


def test_names_and_shapes_are_those_of_a_network_with_weights():
    wanted = {name: weight.shape for name, weight in small().state_dict().items()}
    made = made_on_meta(small).state_dict()
    assert {name: weight.shape for name, weight in made.items()} == wanted
    assert {weight.device.type for weight in made.values()} == {"meta"}


def test_no_compiler_is_imported():
    done = subprocess.run([sys.executable, "-c", MAKE_ALL], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
