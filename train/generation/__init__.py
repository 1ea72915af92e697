"""What fine-tunes the enhancer: training texts, LoRA, supervised and preference training."""
