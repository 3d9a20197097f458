"""PMCE, the co-evolution of pose and mesh: a pose of the middle frame first, then pose and mesh refine each other."""
