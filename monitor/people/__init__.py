"""Who may do what, how they prove who they are, and the trail of what they did."""
