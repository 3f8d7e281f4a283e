"""msekit from Python: train, evaluate, data from memory."""
