"""The engine contract states each verb's promise: the winner of a race, the state after a crash, durability, freshness.

One module a shape: `engine` (cells, mutexes, watches, time and owners), `bucket`, `register` with its slots, `log`;
`values` and `report` have the types that they share. Three engines keep this contract, and one suite tests them all.
"""
