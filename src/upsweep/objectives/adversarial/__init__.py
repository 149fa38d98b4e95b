"""What two players hold against each other: losses of their logits, and penalties on the discriminator's slopes."""
