"""Writers of nodes that dialects share: functions from a node writer to the values that they wrote."""
