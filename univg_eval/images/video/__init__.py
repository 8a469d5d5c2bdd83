"""Frames of videos: which ones are shown, in which order, and reading them exactly by number."""

from __future__ import annotations

from univg_eval.images.video.cache import CACHE_VARIABLE, FrameCache, frame_cache
from univg_eval.images.video.decoding import check_video, count_frames, read_frames
from univg_eval.images.video.folders import FRAME_ORDERS, list_frames, natural_key
from univg_eval.images.video.sampling import SAMPLING_RULES, frame_numbers, sample_frames_even

__all__ = [
    "CACHE_VARIABLE",
    "FRAME_ORDERS",
    "SAMPLING_RULES",
    "FrameCache",
    "check_video",
    "count_frames",
    "frame_cache",
    "frame_numbers",
    "list_frames",
    "natural_key",
    "read_frames",
    "sample_frames_even",
]
