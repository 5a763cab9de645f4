"""The maps S of layer maps φ = σ∘S, on reals and on integers alike."""
