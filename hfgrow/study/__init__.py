"""Studies: several ways to grow, several seeds, one budget, compared at equal loss."""
