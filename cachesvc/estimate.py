"""What an invalidation would touch, before it is done."""
