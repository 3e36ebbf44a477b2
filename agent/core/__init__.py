"""The agent with nothing plugged in: contracts, data and the loop. It imports nothing else of ours and no SDK."""
