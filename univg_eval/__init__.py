"""UniVG: evaluation of universal visual grounding."""
