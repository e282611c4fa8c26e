"""Talks to meters over DLMS/COSEM; knows nothing of balances, thefts or MQTT."""
