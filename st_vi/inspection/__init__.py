"""Inspection of trained models: attention weights, their faithfulness, and their effect on rankings."""
