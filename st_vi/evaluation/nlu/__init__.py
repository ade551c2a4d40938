"""The downstream evaluation of ViCLSR: five Vietnamese language-understanding tasks."""
