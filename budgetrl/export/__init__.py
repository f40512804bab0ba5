"""What budgetrl holds, in the form that other programs take: verl, TRL's command line, a model."""
