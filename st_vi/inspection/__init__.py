"""A look inside a trained model: what the pooling looks at, and what that does to rankings."""
