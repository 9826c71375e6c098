"""A hand-written, exactly resumable trainer of text classifiers."""
