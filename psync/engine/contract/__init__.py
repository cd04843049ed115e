"""What every engine promises, in prose beside each verb: who wins, what a crash leaves, what is durable, what is stale.

One module a shape: `engine` (cells, mutexes, watches, time and owners), `bucket`, `register` with its slots, `log`;
`values` and `report` have the types that they share. Three engines keep this contract, and one suite tests them all.
"""
