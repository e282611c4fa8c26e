"""The service on the gateway and its tools: configuration, collection, alerts, store, MQTT, command line."""
