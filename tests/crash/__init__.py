"""Operations that are killed, refused or held up at every system call they make: what is left must be whole."""
