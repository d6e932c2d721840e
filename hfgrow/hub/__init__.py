"""The two ends of the road: find a model on the Hub and pull it, push what grew from it."""
