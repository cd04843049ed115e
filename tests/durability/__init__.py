"""What a level of durability promises, as far as that can be seen without a power cut (`tests.crash` has those)."""
