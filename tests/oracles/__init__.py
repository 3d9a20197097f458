"""Float64 numpy twins of the formulas, written from the papers and not from the code under test."""
