"""The tiny model's tokenizer: Qwen's special tokens over a byte-level BPE of the project's prompts.

Three choices keep sequences short, which is what a model of this size needs:

* every integer from 0 to 1000 is one token, so that a coordinate is one classification;
* a run of punctuation such as ``),(`` is one word;
* the prompt suffix that asks for a box is one token.

Any text still round-trips: what the vocabulary does not hold falls back to bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["CHAT_TEMPLATE", "END_OF_TURN", "SPECIAL_TOKENS", "SYSTEM_PROMPT", "build_tokenizer"]

END_OF_TURN = "<|im_end|>"
PADDING = "<|endoftext|>"
# Names and meaning of Qwen2-VL's tokenizer_config.json; the ids are this vocabulary's own.
SPECIAL_TOKENS = (
    PADDING,
    "<|im_start|>",
    END_OF_TURN,
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# What lmms-eval's qwen2_vl backend sends, and the default of Qwen2-VL's own template.
SYSTEM_PROMPT = "You are a helpful assistant."

# The conversation form of Qwen2-VL (its chat_template.json), without the optional vision ids.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\n" + SYSTEM_PROMPT + "<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' or 'image' in part or 'image_url' in part %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' or 'video' in part %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Numbers up to 1000 whole, words with their leading space, runs of punctuation, white space.
_WORDS = r"1000|\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MAX_NUMBER = 1000


def build_tokenizer(
    texts: Iterable[str], *, phrases: Sequence[str] = (), vocab_size: int = 1500
) -> PreTrainedTokenizerFast:
    """Train the byte-level BPE and wrap it for transformers.

    Args:
        texts: prompts and answers, in a fixed order (the result depends on it only through ties).
        phrases: texts that become one token each wherever they occur, such as a prompt suffix.
        vocab_size: upper limit of the trained part (256 bytes and merges); numbers, special
            tokens and phrases come on top.

    Returns:
        A tokenizer that pads on the left, as batched generation needs.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    def splitter() -> Any:
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = splitter()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        special_tokens=[],
    )
    trained.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in _model_state(trained)["merges"]]
    vocab: dict[str, int] = {}
    for token, _ in sorted(trained.get_vocab().items(), key=lambda item: item[1]):
        vocab[token] = len(vocab)
    for number in range(MAX_NUMBER + 1):
        vocab.setdefault(str(number), len(vocab))

    # ignore_merges: a word that is in the vocabulary is taken whole, so numbers need no merges.
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = splitter()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=PADDING,
        padding_side="left",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def _model_state(tokenizer: Any) -> dict[str, Any]:
    import json

    state: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return state
