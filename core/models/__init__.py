"""Networks that turn keypoint and feature sequences into meshes."""
