"""The engine: from a config to a trained, checkpointed network."""
