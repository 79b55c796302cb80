"""The simulated ad market with a planted click truth; it stands in for an ads platform. Training never imports it.

catalogue, texts (what advertisers write) -> click_model (the planted truth) -> history (raw multitext ads);
selection, assignment, experiment (the A/B test of two policies, with the truth beside it).
"""
