"""PostureHMR (CVPR 2024): the T-pose mesh is carried to the target in ten steps, guided by a 2D mesh of the frame."""
