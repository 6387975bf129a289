"""A sweep as one archive, to be handed on and repeated elsewhere."""
