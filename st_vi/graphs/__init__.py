"""ONNX graphs of whole models: export, 8 bits, and running them in a stock `SentenceTransformer` or without torch."""
