"""The utility's side: from MQTT into SQL, and the fleet in one view. Shares `agent.wire` with the gateways, no more."""
