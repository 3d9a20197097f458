"""Make tests/data/walk_mediapipe.npz: MediaPipe's own keypoints for tests/data/walk.mp4.

    PYTHONPATH=. python tests/make_walk_golden.py        (in an environment with mediapipe 0.10.21)

walk.mp4 is made from single_person_walk_crop.mp4 of Sports2D (BSD-3-Clause, copyright David Pagnon): 30 frames from
1.5 s on, `ffmpeg -ss 1.5 -frames:v 30 -vf crop=720:524:560:0,scale=440:320 -c:v libx264 -crf 24`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import mediapipe
import numpy as np

from core.skeleton import BLAZEPOSE_INDICES

DATA = Path(__file__).parent / "data"


def main() -> None:
    pose = mediapipe.solutions.pose.Pose(static_image_mode=False, model_complexity=1, smooth_landmarks=False)
    capture, keypoints = cv2.VideoCapture(str(DATA / "walk.mp4")), []
    while True:
        decoded, image = capture.read()
        if not decoded:
            break
        height, width = image.shape[:2]
        landmarks = pose.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).pose_landmarks.landmark
        points = [(landmark.x * width, landmark.y * height, landmark.visibility) for landmark in landmarks]
        keypoints.append(np.array(points, np.float32)[list(BLAZEPOSE_INDICES)])
    np.savez_compressed(DATA / "walk_mediapipe.npz", keypoints=np.stack(keypoints))


if __name__ == "__main__":
    main()
