"""A decoder block with its norms on the device beside HuggingFace's: what is recorded, how it is judged and shown."""
