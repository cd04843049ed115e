"""The store's contract: names, mapping methods, values, hashed categories, and what damage does to them."""
