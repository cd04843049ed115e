"""Calls that interrupt another call of their own thread: handlers, finalisers, trace functions, callbacks."""
