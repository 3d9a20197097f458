"""TCMR (Choi et al., CVPR 2021): GRUs over the past, the future and all frames of a window, joined by attention."""
