"""UniVG: training of visual grounding models."""
