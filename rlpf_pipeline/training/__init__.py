"""Training: imitation models (SFT), the reward model (Bradley-Terry) and AdLlama (PPO)."""
