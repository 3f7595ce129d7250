"""What a reviewer asks of a policy: is it well made, and what does it decide."""
