"""What `accelerate launch -m` starts: one module a job, each a few lines over a trainer."""
