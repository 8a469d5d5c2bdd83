"""Checkpoints of the real architectures, with a few thousand random weights each.

`make_checkpoint("gemma3", folder)` writes config, weights, tokenizer and processor as the family's
own release has them: its special tokens, its image processor, its kind of chat template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["FAMILIES", "make_checkpoint"]

_TURN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE"
    "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.3,
    "max_position_embeddings": 8192,
}
_SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
    "vision_use_head": False,
}
_QWEN_VISION = {"depth": 2, "num_heads": 2, "spatial_merge_size": 2, "temporal_patch_size": 2}
_IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def _tokenizer(special: tuple[str, ...], **roles: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, **{"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"} | roles
    )
    named = {str(token) for token in tokenizer.special_tokens_map.values()}
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [token for token in special if token not in named]}
    )
    return tokenizer


def _qwen(kind: str, processor: str, patch: int, text: Mapping[str, Any]) -> Callable[[], Any]:
    def build() -> Any:
        import transformers

        pad, start, end = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"
        tokenizer = _tokenizer((*_IM, start, end, pad, "<|video_pad|>"))
        ids = tokenizer.convert_tokens_to_ids
        vision = {
            "qwen2_vl": {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2},
            "qwen2_5_vl": {
                "hidden_size": 32,
                "out_hidden_size": 32,
                "intermediate_size": 64,
                "fullatt_block_indexes": [1],
                "window_size": 4 * patch,
            },
        }.get(
            kind,
            {
                "hidden_size": 32,
                "out_hidden_size": 32,
                "intermediate_size": 64,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
        )
        config = transformers.AutoConfig.for_model(
            kind,
            text_config=_TEXT | dict(text) | {"vocab_size": len(tokenizer)},
            vision_config=_QWEN_VISION | vision | {"patch_size": patch},
            image_token_id=ids(pad),
            video_token_id=ids("<|video_pad|>"),
            vision_start_token_id=ids(start),
            vision_end_token_id=ids(end),
        )
        limits = {"shortest_edge": 16 * (2 * patch) ** 2, "longest_edge": 36 * (2 * patch) ** 2}
        made = getattr(transformers, processor)(
            image_processor=transformers.Qwen2VLImageProcessor(
                patch_size=patch, merge_size=2, temporal_patch_size=2, size=limits
            ),
            tokenizer=tokenizer,
            video_processor=transformers.Qwen2VLVideoProcessor(patch_size=patch),
            chat_template=_TURN.replace("IMAGE", f"{start}{pad}{end}"),
        )
        return config, made

    return build


def _internvl() -> Any:
    import transformers as t

    tokenizer = _tokenizer((*_IM, "<IMG_CONTEXT>", "<img>", "</img>", "<video>"))
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = _tokenizer(_IM, extra_special_tokens=names)
    config = t.AutoConfig.for_model(
        "internvl",
        text_config=_TEXT | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": [56, 56],
            "patch_size": [14, 14],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    images = t.GotOcr2ImageProcessor(
        size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = t.InternVLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=t.InternVLVideoProcessor(size={"height": 56, "width": 56}),
        image_seq_length=4,
        chat_template=_TURN.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    return config, processor


def _glm4v() -> Any:
    import transformers as t

    names = (
        *("<|begin_of_image|>", "<|image|>", "<|end_of_image|>"),
        *("<|begin_of_video|>", "<|video|>", "<|end_of_video|>"),
        *("<|begin_of_box|>", "<|end_of_box|>", "[gMASK]", "<sop>"),
    )
    tokenizer = _tokenizer((*_IM, *names))
    begin, pad, end, *video = (tokenizer.convert_tokens_to_ids(name) for name in names[:6])
    config = t.AutoConfig.for_model(
        "glm4v",
        text_config=_TEXT
        | {
            "vocab_size": len(tokenizer),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 3],
                "partial_rotary_factor": 1.0,
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "num_heads": 2,
            "image_size": 56,
            "out_hidden_size": 32,
            "intermediate_size": 64,
        },
        image_start_token_id=begin,
        image_token_id=pad,
        image_end_token_id=end,
        video_start_token_id=video[0],
        video_token_id=video[1],
        video_end_token_id=video[2],
    )
    processor = t.Glm4vProcessor(
        image_processor=t.Glm4vImageProcessor(
            size={"shortest_edge": 12544, "longest_edge": 36 * 28 * 28}
        ),
        tokenizer=tokenizer,
        video_processor=t.Glm4vVideoProcessor(),
        chat_template=_TURN.replace("IMAGE", "".join(names[:3])),
    )
    return config, processor


def _llava_onevision() -> Any:
    import transformers as t

    tokenizer = _tokenizer((*_IM, "<image>", "<video>"))
    points = [[56, 56], [56, 112], [112, 56], [112, 112]]
    config = t.AutoConfig.for_model(
        "llava_onevision",
        text_config=_TEXT | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        vision_config=_SIGLIP | {"model_type": "siglip_vision_model"},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=points,
    )
    processor = t.LlavaOnevisionProcessor(
        image_processor=t.LlavaOnevisionImageProcessor(
            size={"height": 56, "width": 56}, image_grid_pinpoints=points
        ),
        tokenizer=tokenizer,
        video_processor=t.LlavaOnevisionVideoProcessor(size={"height": 56, "width": 56}),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=_TURN.replace("IMAGE", "<image>\n"),
    )
    return config, processor


def _llava() -> Any:
    import transformers as t

    tokenizer = _tokenizer((*_IM, "<image>"))
    config = t.AutoConfig.for_model(
        "llava",
        text_config=_TEXT | {"model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config={k: v for k, v in _SIGLIP.items() if k != "vision_use_head"}
        | {"model_type": "clip_vision_model", "num_hidden_layers": 2},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    processor = t.LlavaProcessor(
        image_processor=t.CLIPImageProcessor(
            size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TURN.replace("IMAGE", "<image>\n"),
    )
    return config, processor


def _gemma3() -> Any:
    import transformers as t

    names = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = _tokenizer(_IM, bos_token="<bos>", extra_special_tokens=names)
    ids = tokenizer.convert_tokens_to_ids
    config = t.AutoConfig.for_model(
        "gemma3",
        text_config=_TEXT
        | {
            "vocab_size": len(tokenizer),
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "initializer_range": 0.02,
        },
        vision_config=_SIGLIP,
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
    )
    processor = t.Gemma3Processor(
        image_processor=t.Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template="<bos>" + _TURN.replace("IMAGE", "<start_of_image>"),
    )
    return config, processor


def _paligemma() -> Any:
    import transformers as t

    places = tuple(f"<loc{i:04d}>" for i in range(1024))
    tokenizer = _tokenizer(("<image>",), bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    images = t.SiglipImageProcessor(size={"height": 56, "width": 56})
    images.image_seq_length = 16
    tokenizer.add_tokens(list(places))
    processor = t.PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)
    n = len(processor.tokenizer)
    config = t.AutoConfig.for_model(
        "paligemma",
        text_config=_TEXT
        | {"model_type": "gemma", "vocab_size": n, "head_dim": 16, "num_image_tokens": 16},
        vision_config=_SIGLIP | {"projection_dim": 32},
        image_token_index=processor.image_token_id,
        vocab_size=n,
        projection_dim=32,
        hidden_size=32,
    )
    return config, processor


def _florence2() -> Any:
    import transformers as t

    tokenizer = _tokenizer(
        ("<image>",),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
    places = [f"<loc_{i}>" for i in range(1000)]
    tokenizer.add_special_tokens({"additional_special_tokens": places})
    images = t.CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 5
    processor = t.Florence2Processor(image_processor=images, tokenizer=tokenizer)
    config = t.AutoConfig.for_model(
        "florence2",
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "init_std": 0.3,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "decoder_start_token_id": tokenizer.eos_token_id,
            "forced_eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depths": [1, 1, 1, 1],
            "embed_dim": [8, 16, 16, 32],
            "num_heads": [1, 1, 1, 2],
            "num_groups": [1, 1, 1, 2],
            "window_size": 2,
            "projection_dim": 32,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return config, processor


def _kosmos2() -> Any:
    import transformers as t

    tokenizer = _tokenizer(
        (), bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    images = t.CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    processor = t.Kosmos2Processor(images, tokenizer, 64)
    config = t.AutoConfig.for_model(
        "kosmos-2",
        text_config={
            "vocab_size": len(processor.tokenizer),
            "embed_dim": 32,
            "layers": 2,
            "ffn_dim": 64,
            "attention_heads": 2,
            "init_std": 0.3,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={k: v for k, v in _SIGLIP.items() if k != "vision_use_head"},
        latent_query_num=64,
    )
    return config, processor


def _idefics3() -> Any:
    import transformers as t

    names = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    places = tuple(f"<row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5))
    tokenizer = _tokenizer((*_IM, *places), extra_special_tokens=names)
    config = t.AutoConfig.for_model(
        "idefics3",
        text_config=_TEXT
        | {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "head_dim": 16,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={k: v for k, v in _SIGLIP.items() if k != "vision_use_head"},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = t.Idefics3Processor(
        image_processor=t.Idefics3ImageProcessor(
            size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
        ),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=_TURN.replace("IMAGE", "<image>"),
    )
    return config, processor


def _lfm2_vl() -> Any:
    import transformers as t

    names = {
        "image_token": "<image>",
        "image_start_token": "<|image_start|>",
        "image_end_token": "<|image_end|>",
        "image_thumbnail": "<|img_thumbnail|>",
    }
    places = tuple(f"<|img_row_{r}_col_{c}|>" for r in range(1, 5) for c in range(1, 5))
    tokenizer = _tokenizer((*_IM, *places), extra_special_tokens=names)
    config = t.AutoConfig.for_model(
        "lfm2_vl",
        text_config=_TEXT
        | {
            "model_type": "lfm2",
            "vocab_size": len(tokenizer),
            "full_attn_idxs": [1],
            "block_multiple_of": 16,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "model_type": "siglip2_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_patches": 16,
            "vision_use_head": False,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        projector_hidden_size=32,
    )
    processor = t.Lfm2VlProcessor(
        image_processor=t.Lfm2VlImageProcessor(
            min_image_tokens=4,
            max_image_tokens=16,
            min_tiles=1,
            max_tiles=4,
            tile_size=64,
            max_num_patches=64,
            encoder_patch_size=16,
        ),
        tokenizer=tokenizer,
        chat_template=_TURN.replace("IMAGE", "<image>"),
    )
    return config, processor


def _smolvlm() -> Any:
    import transformers as t

    config, processor = _idefics3()
    parts = {name: getattr(config, f"{name}_config").to_dict() for name in ("text", "vision")}
    parts["vision"].pop("model_type")
    config = t.AutoConfig.for_model(
        "smolvlm",
        text_config=parts["text"],
        vision_config=parts["vision"],
        image_token_id=config.image_token_id,
        scale_factor=2,
    )
    processor = t.SmolVLMProcessor(
        image_processor=t.SmolVLMImageProcessor(
            size={"longest_edge": 112}, max_image_size={"longest_edge": 56}
        ),
        tokenizer=processor.tokenizer,
        video_processor=t.SmolVLMVideoProcessor(),
        image_seq_len=4,
        chat_template=processor.chat_template,
    )
    return config, processor


def _mistral3() -> Any:
    import transformers as t

    tokenizer = _tokenizer((*_IM, "[IMG]", "[IMG_BREAK]", "[IMG_END]"))
    config = t.AutoConfig.for_model(
        "mistral3",
        text_config=_TEXT | {"model_type": "mistral", "vocab_size": len(tokenizer), "head_dim": 16},
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "head_dim": 16,
            "image_size": 112,
            "patch_size": 14,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
        tie_word_embeddings=False,
    )
    processor = t.PixtralProcessor(
        image_processor=t.PixtralImageProcessor(
            size={"longest_edge": 112}, patch_size={"height": 14, "width": 14}
        ),
        tokenizer=tokenizer,
        patch_size=14,
        spatial_merge_size=2,
        chat_template=_TURN.replace("IMAGE", "[IMG]"),
    )
    return config, processor


def _kimi_k25() -> Any:
    import transformers as t

    marks = ("<|media_begin|>", "<|media_content|>", "<|media_pad|>", "<|media_end|>")
    tokenizer = _tokenizer((*_IM, *marks, "<|kimi_k25_video_placeholder|>"))
    ids = tokenizer.convert_tokens_to_ids
    config = t.AutoConfig.for_model(
        "kimi_k25",
        text_config=_TEXT
        | {
            "model_type": "deepseek_v3",
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 2,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 16,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
        },
        projection_hidden_size=32,
        image_token_id=ids("<|media_pad|>"),
        video_token_id=ids("<|kimi_k25_video_placeholder|>"),
        vision_start_token_id=ids("<|media_begin|>"),
        vision_end_token_id=ids("<|media_end|>"),
        tie_word_embeddings=False,
    )
    begin, content, pad, end = marks
    processor = t.Kimi_K25Processor(
        image_processor=t.Kimi_K25ImageProcessor(max_patches=36),
        tokenizer=tokenizer,
        video_processor=t.Kimi_K25VideoProcessor(),
        chat_template=_TURN.replace("IMAGE", f"{begin}image{content}{pad}{end}"),
    )
    return config, processor


def _minicpmv4_6() -> Any:
    import transformers as t

    names = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    }
    tokenizer = _tokenizer(_IM, extra_special_tokens=names)
    config = t.AutoConfig.for_model(
        "minicpmv4_6",
        text_config=_TEXT
        | _HYBRID
        | {
            "model_type": "qwen3_5_text",
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 112,
            "patch_size": 14,
        },
        insert_layer_id=0,
        image_size=112,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
    )
    processor = t.MiniCPMV4_6Processor(
        image_processor=t.MiniCPMV4_6ImageProcessor(max_slice_nums=4, scale_resolution=112),
        tokenizer=tokenizer,
        video_processor=t.MiniCPMV4_6VideoProcessor(),
        chat_template=_TURN.replace("IMAGE", "<|image_pad|>"),
    )
    return config, processor


def _molmo2() -> Any:
    import transformers as t

    marks = {
        "image_start_token_id": "<im_start>",
        "low_res_image_start_token_id": "<low_res_im_start>",
        "image_end_token_id": "<im_end>",
        "image_patch_id": "<im_patch>",
        "frame_start_token_id": "<frame_start>",
        "frame_end_token_id": "<frame_end>",
    }
    tokenizer = _tokenizer(
        (*_IM, *marks.values(), "<im_col>", "<im_low>", "<|image|>", "<|video|>")
    )
    heads = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    config = t.AutoConfig.for_model(
        "molmo2",
        text_config=_TEXT
        | {"vocab_size": len(tokenizer) - 16, "additional_vocab_size": 16, "head_dim": 16},
        vision_config=heads | {"num_hidden_layers": 2, "image_size": [56, 56], "patch_size": 14},
        adapter_config=heads | {"text_hidden_size": 32, "vision_feature_layer": [1, 0]},
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in marks.items()},
    )
    processor = t.Molmo2Processor(
        image_processor=t.Molmo2ImageProcessor(
            size={"height": 56, "width": 56}, max_crops=2, overlap_margins=[1, 1]
        ),
        video_processor=t.Molmo2VideoProcessor(),
        tokenizer=tokenizer,
        chat_template=_TURN.replace("IMAGE", "<|image|>"),
    )
    return config, processor


_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
_HYBRID = {
    "head_dim": 32,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "rope_parameters": _MROPE
    | {"mrope_section": [2, 1, 1], "mrope_interleaved": True, "partial_rotary_factor": 0.25},
}
FAMILIES: Mapping[str, Callable[[], Any]] = {
    "qwen2_vl": _qwen("qwen2_vl", "Qwen2VLProcessor", 14, {"rope_parameters": _MROPE}),
    "qwen2_5_vl": _qwen("qwen2_5_vl", "Qwen2_5_VLProcessor", 14, {"rope_parameters": _MROPE}),
    "qwen3_vl": _qwen(
        "qwen3_vl",
        "Qwen3VLProcessor",
        16,
        {"head_dim": 16, "rope_parameters": _MROPE | {"mrope_interleaved": True}},
    ),
    "qwen3_5": _qwen("qwen3_5", "Qwen3VLProcessor", 16, _HYBRID),
    "internvl": _internvl,
    "glm4v": _glm4v,
    "llava_onevision": _llava_onevision,
    "llava": _llava,
    "gemma3": _gemma3,
    "paligemma": _paligemma,
    "florence2": _florence2,
    "kosmos-2": _kosmos2,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "mistral3": _mistral3,
    "kimi_k25": _kimi_k25,
    "minicpmv4_6": _minicpmv4_6,
    "molmo2": _molmo2,
    "lfm2_vl": _lfm2_vl,
}
"""Family (model_type) → its config and processor."""


def make_checkpoint(family: str, folder: Path, *, seed: int = 0, for_vllm: bool = False) -> Path:
    """Write the checkpoint of a family; the folder.

    Args:
        family: of `FAMILIES`.
        folder: to write to.
        seed: of the weights.
        for_vllm: its attention kernels for CPUs take heads of 32 dimensions or more, so the
            language model gets one. Answers are ASCII, for vLLM leaves out a character at the end
            of which not all tokens are there, and have no special tokens before their end.
    """
    from transformers import AutoModelForImageTextToText

    config, processor = FAMILIES[family]()
    if for_vllm:
        text = config.text_config
        text.num_attention_heads = text.num_key_value_heads = 1
        if hasattr(text, "head_dim"):
            text.head_dim = text.hidden_size
        if "mrope_section" in (getattr(text, "rope_parameters", None) or {}):
            text.rope_parameters["mrope_section"] = [4, 6, 6]
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    tokenizer = processor.tokenizer
    if for_vllm:
        words = [tokenizer.decode([i]) for i in range(len(tokenizer))]
        special = {*tokenizer.all_special_ids} - {tokenizer.eos_token_id}
        unsaid = [i for i, word in enumerate(words) if i in special or not word.isascii()]
        with torch.no_grad():
            model.get_output_embeddings().weight[unsaid] = 0.0
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
