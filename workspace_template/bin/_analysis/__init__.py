"""What the analysis commands share. Standard library only: it runs in a sandbox that has nothing of ours installed."""
