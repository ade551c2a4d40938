"""Hard negatives: made from the positive, taken from its document, judged by a model, and drawn into batches."""
