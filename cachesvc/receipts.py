"""Waiting until an invalidation has arrived everywhere, and telling later how far it got."""
