"""Clips and pictures that the golden rows name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from future_l1_verl.data.video import write_video


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ID_7.mp4`` of 12 frames, frame n of brightness 20 n; ``picture.png``; and as in V1-33K a clip of 12 frames in
    ``video_dataset`` whose first 6 are the one in ``first_part_video``."""
    folder = tmp_path_factory.mktemp("media")
    frames = np.broadcast_to(np.arange(12, dtype=np.uint8)[:, None, None, None] * 20, (12, 64, 64, 3)).copy()
    write_video(folder / "ID_7.mp4", frames, 4)
    for name, count in (("video_dataset", 12), ("first_part_video", 6)):
        (folder / name / "youtube").mkdir(parents=True)
        write_video(folder / name / "youtube/v0.mp4", frames[:count], 4)
    Image.new("RGB", (32, 32), "red").save(folder / "picture.png")
    return folder
