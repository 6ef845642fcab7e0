"""Tasks, whether they succeeded, and what one success costs: `figures.figures` has it all."""
