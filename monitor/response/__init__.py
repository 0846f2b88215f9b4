"""Orders that stop agents, and the proof that they stopped."""
