"""Everything about tensors: codecs, the exact side that all parties share, and the trainers in their own process."""
