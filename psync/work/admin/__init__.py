"""Administration of whole stores: an overview of what is in one, and a copy of it elsewhere."""
