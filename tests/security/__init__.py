"""Who is let in: directories that others can write to, keys and seals, and what attackers plant."""
