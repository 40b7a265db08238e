"""A synthetic video-event set: exactly simulated moving shapes, short clips, and questions about the next events."""
