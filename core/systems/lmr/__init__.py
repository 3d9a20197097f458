"""LMR: a recurrent model for each of six parts of the body (Li et al., "Learning Local Recurrent Models", 2020)."""
