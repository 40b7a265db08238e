"""Data for Future-L1: the TwiFF format and the synthetic video-event set."""
