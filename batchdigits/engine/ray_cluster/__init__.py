"""Run the engine on a cluster of Ray."""
