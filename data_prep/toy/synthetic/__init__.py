"""A synthetic video-event set: exactly simulated moving shapes, short clips, questions about what happens next."""
