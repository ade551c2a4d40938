"""Still pictures of figures, for viewers that run no scripts: drawn with Pillow from what the figure holds."""
