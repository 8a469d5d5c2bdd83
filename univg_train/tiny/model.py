"""The tiny Qwen2-VL: its shape, its processor, and a fast forward pass for training.

The model is transformers' own `Qwen2VLForConditionalGeneration`, only small. For training,
`packed_logits` runs the same weights over several independent question-and-answer turns that
share one prefix of images; each turn sees the prefix and itself, and its positions continue the
prefix, so its logits are those of a conversation with that turn alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from univg_train.tiny.auxiliary import attention_loss
from univg_train.tiny.tokenizer import CHAT_TEMPLATE

if TYPE_CHECKING:
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2VLForConditionalGeneration,
        Qwen2VLProcessor,
    )

    from univg_train.tiny.auxiliary import ShownObjects, TokenHeads, Trainee

__all__ = [
    "FRAMES",
    "IMAGE_SIDE",
    "PackedBatch",
    "TinyShape",
    "build_model",
    "build_processor",
    "compile_layers",
    "image_patches",
    "packed_logits",
    "packed_outputs",
    "training_dtype",
    "vision_features",
]

# A patch spans two frames of a video; a still image is shown twice.
FRAMES = 2
# Six of Qwen2-VL's own units: patches of 14 pixels, of which 2 x 2 make a token.
IMAGE_SIDE = 168
# Heads of the looking layer that the auxiliary loss leads.
LOOKING_HEADS = 2


def training_dtype() -> torch.dtype:
    """What gradients are computed in: bfloat16, or float32 on a CPU below AVX-512.

    There torch multiplies matrices in bfloat16 by plain loops, some forty times more slowly.
    """
    slow = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX", "AVX2")
    return torch.float32 if slow else torch.bfloat16


@dataclass(frozen=True, slots=True)
class TinyShape:
    """Sizes of the model; the defaults are those of the checkpoint that ships.

    `looking_layer` counts the layers of the language model from zero: the one whose attention the
    auxiliary loss leads; the layer before it is read by the second of `TokenHeads`.
    """

    hidden: int = 128
    intermediate: int = 384
    layers: int = 6
    heads: int = 4
    kv_heads: int = 4
    vision_dim: int = 96
    vision_depth: int = 3
    vision_heads: int = 3
    vision_mlp_ratio: int = 3
    patch: int = 14
    merge: int = 2
    looking_layer: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.looking_layer < self.layers:
            raise ValueError(f"looking_layer {self.looking_layer} is none of {self.layers} layers")

    @property
    def grid(self) -> int:
        """Patches along one side of an image."""
        return IMAGE_SIDE // self.patch

    @property
    def tokens_per_image(self) -> int:
        """Language tokens of one image."""
        return (self.grid // self.merge) ** 2


def _rope_sections(head_dim: int) -> list[int]:
    # Time has the fast frequencies, which count images; the slow ones hardly turn over a whole
    # prompt and stay free for matching content. Shares of 2:3:3, as Qwen2-VL's.
    time = head_dim // 8
    return [time, (head_dim // 2 - time) // 2, (head_dim // 2 - time) // 2]


def build_model(
    shape: TinyShape, tokenizer: PreTrainedTokenizerFast, *, seed: int
) -> Qwen2VLForConditionalGeneration:
    """A freshly initialised model in float32; the same seed gives the same weights."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    def token(name: str) -> int:
        number = tokenizer.convert_tokens_to_ids(name)
        assert isinstance(number, int), name
        return number

    head_dim = shape.hidden // shape.heads
    ids: dict[str, Any] = {
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
    }
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": _rope_sections(head_dim),
            },
            "tie_word_embeddings": True,
            **ids,
        },
        vision_config={
            "depth": shape.vision_depth,
            "embed_dim": shape.vision_dim,
            "hidden_size": shape.hidden,
            "num_heads": shape.vision_heads,
            "mlp_ratio": shape.vision_mlp_ratio,
            "patch_size": shape.patch,
            "spatial_merge_size": shape.merge,
            "temporal_patch_size": FRAMES,
            "in_channels": 3,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
        **ids,
    )
    # Read by univg: how this checkpoint writes boxes and which prompt it was trained on.
    config.univg = {"dialect": "qwen2_vl", "prompt": "direct"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2VLForConditionalGeneration(config)
    model.generation_config.do_sample = False
    return model


def build_processor(shape: TinyShape, tokenizer: PreTrainedTokenizerFast) -> Qwen2VLProcessor:
    """The processor that ships with the model: every square image becomes IMAGE_SIDE pixels."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    sizes: dict[str, Any] = {
        "patch_size": shape.patch,
        "merge_size": shape.merge,
        "temporal_patch_size": FRAMES,
        "min_pixels": IMAGE_SIDE**2,
        "max_pixels": IMAGE_SIDE**2,
    }
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=CHAT_TEMPLATE,
    )


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows of shared image prefixes with independent turns.

    images: (images, side, side, 3) uint8, in the order in which they stand in the rows.
    input_ids: (rows, length), padded on the right.
    positions: (3, rows, length), M-RoPE positions (time, height, width).
    segment: (rows, length), 0 for the prefix, 1.. for the turns, -1 for padding.
    target_index: (targets,) flat indices into rows * length: the tokens whose successor is
        learnt; target_ids: (targets,) that successor; target_weight: (targets,).
    shown: what each image shows, for `packed_outputs`.
    """

    images: Tensor
    input_ids: Tensor
    positions: Tensor
    segment: Tensor
    target_index: Tensor
    target_ids: Tensor
    target_weight: Tensor
    shown: ShownObjects | None = None

    @property
    def attention(self) -> Tensor:
        """(rows, 1, length, length) bool: causal, within the own turn and the prefix."""
        query, key = self.segment[:, :, None], self.segment[:, None, :]
        length = self.segment.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = causal & ((key == 0) | (key == query))
        return mask[:, None]


def image_patches(
    images: Tensor, shape: TinyShape, dtype: torch.dtype, *, frames: int = 1
) -> Tensor:
    """Normalised pixels as Qwen2VLImageProcessor writes them.

    Args:
        images: (images, side, side, 3) uint8, already IMAGE_SIDE pixels.
        shape: of the model.
        dtype: of the result.
        frames: how often each image is shown: `FRAMES` as the processor does it.

    Returns:
        (images, patches, 3 * frames * patch * patch), patches in blocks of merge x merge.
    """
    from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
    pixels = (images.float() / 255.0 - mean) / std
    blocks = shape.grid // shape.merge
    grid = pixels.view(
        len(images), blocks, shape.merge, shape.patch, blocks, shape.merge, shape.patch, 3
    )
    patches = grid.permute(0, 1, 4, 2, 5, 7, 3, 6)
    patches = patches.reshape(len(images), shape.grid**2, 3, 1, -1).expand(-1, -1, -1, frames, -1)
    return patches.reshape(len(images), shape.grid**2, -1).to(dtype)


def vision_features(visual: Any, patches: Tensor, grid: int) -> Tensor:
    """The vision tower over a stack of images of one size.

    The stock forward loops over images in every layer; here they are a batch dimension.

    Args:
        visual: the model's Qwen2VisionTransformerPretrainedModel.
        patches: (images, grid * grid, values of a patch).
        grid: patches along one side.

    Returns:
        (images, tokens of an image, hidden size of the text model).
    """
    images, count, _ = patches.shape
    merge = visual.spatial_merge_size
    # Patches arrive in blocks of merge x merge, like the stock processor writes them.
    side = torch.arange(grid)
    place = torch.stack(torch.meshgrid(side, side, indexing="ij"), dim=-1)
    blocks = place.view(grid // merge, merge, grid // merge, merge, 2).transpose(1, 2)
    place = blocks.reshape(-1, 2)
    cos, sin = visual.rotary_pos_emb(patches, place)
    cos, sin = cos[None, None], sin[None, None]

    # Both frames of a still image are the same, so their weights can be added.
    weight = visual.patch_embed.proj.weight.sum(dim=2)
    x = functional.linear(patches, weight.reshape(weight.shape[0], -1))
    for block in visual.blocks:
        x = _vision_block(block, x, cos, sin)
    return visual.merger(x).view(images, count // merge**2, -1)


def compile_layers() -> None:
    """Let torch fuse the arithmetic of a layer: about a third faster, a minute to begin with."""
    global _vision_block, _text_layer
    _vision_block = torch.compile(_vision_block, dynamic=True)
    _text_layer = torch.compile(_text_layer, dynamic=True)


def _vision_block(block: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    images, count, _ = x.shape
    attention = block.attn
    qkv = attention.qkv(block.norm1(x)).view(images, count, 3, attention.num_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    mixed = functional.scaled_dot_product_attention(q, k, v)
    x = x + attention.proj(mixed.transpose(1, 2).reshape(images, count, -1))
    return x + block.mlp(block.norm2(x))


def _text_layer(layer: Any, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
    rows, length, _ = x.shape
    attention = layer.self_attn
    h = layer.input_layernorm(x)
    shape = (rows, length, -1, attention.head_dim)
    q = _rotate(attention.q_proj(h).view(shape).transpose(1, 2), cos, sin)
    k = _rotate(attention.k_proj(h).view(shape).transpose(1, 2), cos, sin)
    v = attention.v_proj(h).view(shape).transpose(1, 2)
    mixed = masked_attention(q, k, v, mask, attention.head_dim**-0.5)
    x = x + attention.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))
    return x + layer.mlp(layer.post_attention_layernorm(x))


class _MaskedAttention(torch.autograd.Function):
    """softmax(scale * q k^T + mask) v by plain matrix products.

    On processors with bfloat16 matrix units this takes about half the time of torch's fused
    kernel, forward and backward, at the lengths of a packed row.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
        scores = torch.matmul(q, k.transpose(-1, -2)).mul_(scale).add_(mask)
        shares = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(q, k, v, shares)
        ctx.scale = scale
        return torch.matmul(shares, v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, shares = ctx.saved_tensors
        d_shares = torch.matmul(grad, v.transpose(-1, -2))
        d_scores = torch._softmax_backward_data(d_shares, shares, -1, shares.dtype)
        d_scores.mul_(ctx.scale)
        return (
            torch.matmul(d_scores, k),
            torch.matmul(d_scores.transpose(-1, -2), q),
            torch.matmul(shares.transpose(-1, -2), grad),
            None,
            None,
        )


@torch.compiler.disable
def masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention with an additive mask.

    Args:
        q, k, v: (rows, heads, length, head size); as many heads of k and v as of q.
        mask: (rows, 1, length, length), 0 or minus infinity.
    """
    result: Tensor = _MaskedAttention.apply(q, k, v, mask, scale)
    return result


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return (x * cos + turned * sin).to(x.dtype)


def packed_logits(
    model: Qwen2VLForConditionalGeneration, batch: PackedBatch, shape: TinyShape
) -> Tensor:
    """Logits at the batch's targets, (targets, vocabulary), in the dtype of the weights."""
    return _forward(model, batch, shape, None)[0]


def packed_outputs(
    trainee: Trainee, batch: PackedBatch, shape: TinyShape
) -> tuple[Tensor, Tensor, Tensor]:
    """`packed_logits`, and the sums of the auxiliary losses.

    Args:
        trainee: the model with its heads.
        batch: rows that say what their images show.
        shape: of the model.

    Returns:
        The logits; the losses of `TokenHeads` and `attention_loss`, float32 scalars.
    """
    return _forward(trainee.model, batch, shape, trainee.heads)


def _forward(
    model: Qwen2VLForConditionalGeneration,
    batch: PackedBatch,
    shape: TinyShape,
    heads: TokenHeads | None,
) -> tuple[Tensor, Tensor, Tensor]:
    inner = model.model
    text = inner.language_model
    rows, length = batch.input_ids.shape
    x = text.embed_tokens(batch.input_ids)
    patches = image_patches(batch.images, shape, x.dtype)
    features = vision_features(inner.visual, patches, shape.grid)
    is_image = batch.input_ids == model.config.image_token_id
    x = x.masked_scatter(is_image[..., None], features.to(x.dtype))
    cos, sin = text.rotary_emb(x, batch.positions)
    cos, sin = cos[:, None], sin[:, None]
    # Additive, in the dtype of the attention: the kernel would convert a bool mask every layer.
    mask = torch.zeros_like(batch.attention, dtype=x.dtype).masked_fill_(
        ~batch.attention, float("-inf")
    )
    seen = looking = torch.zeros(())
    for number, layer in enumerate(text.layers):
        if heads is not None and batch.shown is not None:
            # Where images enter the language model, and before its answers look for an object.
            if number in (0, shape.looking_layer - 1):
                seen = seen + heads(min(number, 1), x[is_image], batch.shown.figures.flatten(0, 1))
            if number == shape.looking_layer and len(batch.shown.looks):
                looking = _looking(layer, x, cos, sin, mask, batch.shown)
        x = _text_layer(layer, x, cos, sin, mask)
    chosen = x.reshape(rows * length, -1)[batch.target_index]
    return model.lm_head(text.norm(chosen)), seen, looking


def _looking(
    layer: Any, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, shown: ShownObjects
) -> Tensor:
    """`attention_loss` of the first heads of a layer."""
    attention = layer.self_attn
    size = LOOKING_HEADS * attention.head_dim
    h = layer.input_layernorm(x)

    def part(projection: Any) -> Tensor:
        bias = None if projection.bias is None else projection.bias[:size]
        mixed = functional.linear(h, projection.weight[:size], bias)
        return _rotate(mixed.unflatten(-1, (LOOKING_HEADS, -1)).transpose(1, 2), cos, sin)

    query, key = part(attention.q_proj), part(attention.k_proj)
    scale = attention.head_dim**-0.5
    return attention_loss(query, key, mask, shown.looks, shown.looked_at, scale)
