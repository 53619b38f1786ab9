"""The trainers `lm`, `digits` and `linear`: base models, data and training steps. torch runs in the child only."""
