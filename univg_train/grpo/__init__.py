"""GRPO with the metric as its reward and prompts weighted by difficulty."""
