"""Train models under many losses and compare the results fairly."""
